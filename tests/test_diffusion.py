"""Schedules, targets, losses and their weights: hand-worked values, and sd-scripts' in reference/loss.json."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_lora_trainer.config.loss import LossConfig, NoiseConfig
from lib_lora_trainer.diffusion import combinations, objective, schedule
from lib_lora_trainer.diffusion.objective import At

REFERENCE = json.loads((Path(__file__).parent / "reference" / "loss.json").read_text(encoding="utf-8"))
TIMESTEPS = torch.tensor(REFERENCE["timesteps"])
WEIGHTS = {
    "min-SNR 5": LossConfig(min_snr_gamma=5.0),
    "min-SNR 1.5": LossConfig(min_snr_gamma=1.5),
    "debiased": LossConfig(debiased=True),
    "v-like 0.5": LossConfig(v_like=0.5),
    "scale v like noise": LossConfig(scale_v_like_noise=True),
}
DIFFERENCES = {
    "SNR of the schedule in use": "sd-scripts weights a rescaled schedule by the SNR it had before",
    "SNR of at least 1/1000": "where sd-scripts' debiased and v-like weights grow to infinity at the end of such a one",
    "min-SNR weight 1 at SNR 0": "the limit, where sd-scripts divides 0 by 0",
    "huber_scale in every schedule": "sd-scripts ignores it in snr",
    "random strengths per example": "sd-scripts draws one per batch; ours may not depend on the batch",
    "standard deviation of pyramid noise per example": "sd-scripts takes the batch's, for the same reason",
    "no fixed timestep": "sd-scripts takes the upper one where the interval is empty; combinations.problems refuses it",
}
"""Everything in which losses and noise differ from sd-scripts on purpose; the tests that show it name their entry."""


def stable_diffusion() -> torch.Tensor:
    """Return Stable Diffusion's alphas_cumprod: β from 0.00085 to 0.012, linear in √β, 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def near(found: torch.Tensor, reference: list[float], tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(found, torch.tensor(reference), rtol=tolerance, atol=1e-7)


# --- schedule


def test_signal_noise_and_velocity_are_the_papers():
    cumprod = torch.tensor([0.99, 0.64, 0.04])
    alpha, sigma = schedule.alpha_sigma(cumprod, torch.tensor([1, 2]))
    torch.testing.assert_close(alpha.flatten(), torch.tensor([0.8, 0.2]))
    latents, noise = torch.full((2, 4, 1, 1), 3.0), torch.full((2, 4, 1, 1), 5.0)
    noisy = schedule.add_noise(latents, noise, alpha, sigma)
    torch.testing.assert_close(noisy[0, 0, 0, 0], torch.tensor(0.8 * 3 + 0.6 * 5))
    assert torch.equal(objective.target("epsilon", latents, noise, alpha, sigma), noise)
    v = objective.target("v", latents, noise, alpha, sigma)
    torch.testing.assert_close(v[0, 0, 0, 0], torch.tensor(0.8 * 5 - 0.6 * 3))
    # v and x_t determine x_0 = alpha x_t - sigma v (Salimans & Ho, appendix D).
    torch.testing.assert_close(alpha * noisy - sigma * v, latents)


def test_snr_is_signal_over_noise():
    found = schedule.snr(torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0]), torch.tensor([4, 3, 2, 1, 0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 1.0, 4.0, math.inf]))


def test_zero_terminal_schedule_is_worked_by_hand():
    # √ᾱ = 1, 0.7, 0.4; minus 0.4 and times 1 / (1 - 0.4): 1, 0.5, 0.
    found = schedule.rescale_zero_terminal_snr(torch.tensor([1.0, 0.49, 0.16]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.25, 0.0]))


def test_zero_terminal_schedule_keeps_its_first_step_ends_in_0_and_is_idempotent():
    before = stable_diffusion()
    found = schedule.rescale_zero_terminal_snr(before)
    assert found[-1] == 0 and found[0] == before[0] and found.dtype == torch.float32
    assert (found.diff() < 0).all() and (found[1:] < before[1:]).all()
    torch.testing.assert_close(schedule.rescale_zero_terminal_snr(found), found, rtol=1e-6, atol=0)


def test_schedules_are_sd_scripts():
    near(stable_diffusion()[TIMESTEPS], REFERENCE["alphas_cumprod"], 1e-6)
    # sd-scripts' float32 product of 1000 alphas loses digits towards the end.
    rescaled = schedule.rescale_zero_terminal_snr(stable_diffusion())
    near(rescaled[TIMESTEPS], REFERENCE["zero-terminal alphas_cumprod"], 2e-4)


# --- weights of timesteps


@pytest.mark.parametrize("name", REFERENCE["weights"])
def test_weights_are_sd_scripts(name):
    weighting, _, prediction = name.partition(", ")
    found = objective.weights(At(TIMESTEPS, stable_diffusion()), WEIGHTS[weighting], prediction)
    near(found, REFERENCE["weights"][name])
    assert found.unique().numel() > 3, "weights that do not depend on the timestep would prove nothing"


@pytest.mark.parametrize("name", REFERENCE["weights"])
def test_snr_weights_follow_the_rescaled_schedule(name):
    """DIFFERENCES: SNR of the schedule in use; SNR of at least 1/1000; min-SNR weight 1 at SNR 0."""
    weighting, _, prediction = name.partition(", ")
    rescaled = schedule.rescale_zero_terminal_snr(stable_diffusion())
    found = objective.weights(At(TIMESTEPS, rescaled), WEIGHTS[weighting], prediction)
    # What sd-scripts computes when SNR is taken from the rescaled schedule; it does not in its own order.
    assert REFERENCE["zero-terminal weights, SNR before"][name] == REFERENCE["weights"][name]
    wanted = torch.tensor([float(value) for value in REFERENCE["zero-terminal weights"][name]])
    assert not torch.allclose(wanted, torch.tensor(REFERENCE["weights"][name]))
    usual = schedule.snr(rescaled, TIMESTEPS) >= 1e-3
    assert usual.sum() == 9
    torch.testing.assert_close(found[usual], wanted[usual], rtol=1e-4, atol=0)
    at_the_end = {
        "min-SNR 5, epsilon": 1.0,
        "min-SNR 1.5, epsilon": 1.0,
        "debiased, epsilon": 1000**0.5,
        "min-SNR 5, v": 0.0,
        "min-SNR 1.5, v": 0.0,
        "debiased, v": 1.0,
        "v-like 0.5, epsilon": 1 + 0.5 * 1001,
        "scale v like noise, v": 0.0,
    }
    torch.testing.assert_close(found[-1], torch.tensor(at_the_end[name]))
    assert found.isfinite().all()


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_at_snr_0_are_finite(name, prediction):
    """Also at infinite SNR, and all of them together."""
    at = At(torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.5, 0.0]))
    together = LossConfig(min_snr_gamma=5.0, debiased=True, v_like=1.0, scale_v_like_noise=True)
    for config in (WEIGHTS[name], together):
        assert objective.weights(at, config, prediction).isfinite().all()


def test_weights_multiply_and_off_is_1():
    at = At(torch.tensor([0]), torch.tensor([0.8]))  # SNR 4
    assert objective.weights(at, LossConfig(), "v").tolist() == [1.0]
    both = LossConfig(min_snr_gamma=2.0, debiased=True, v_like=2.0, scale_v_like_noise=True)
    torch.testing.assert_close(objective.weights(at, both, "epsilon"), torch.tensor([2 / 4 / 2 * (1 + 2 * 5 / 4)]))
    torch.testing.assert_close(objective.weights(at, both, "v"), torch.tensor([2 / 5 / 5 * 4 / 5]))


# --- losses


def test_losses_are_worked_by_hand():
    predicted, wanted = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 0.0]).view(1, 2, 1, 1)
    at = At(torch.tensor([1]), torch.tensor([0.9, 0.5, 0.1]))

    def loss(**settings: object) -> float:
        config = LossConfig(**settings)
        return objective.example_losses(predicted, wanted, at, config, "epsilon").item()

    assert loss() == pytest.approx(4.5) and loss(kind="l1") == pytest.approx(1.5)
    # d = 3, c = 4: √(9 + 16) - 4 = 1, so smooth-l1 2 and huber 8; the other value's is 0.
    assert loss(kind="smooth-l1", huber_schedule="constant", huber_c=4.0) == pytest.approx(1.0)
    assert loss(kind="huber", huber_schedule="constant", huber_c=4.0) == pytest.approx(4.0)
    assert loss(kind="huber", huber_schedule="constant", huber_c=2.0, huber_scale=2.0) == pytest.approx(4.0)


def huber(row: dict) -> LossConfig:
    return LossConfig(
        kind=row.get("kind", "huber").replace("_", "-"),
        huber_schedule=row["schedule"],
        huber_c=row["c"],
        huber_scale=row["scale"],
    )


@pytest.mark.parametrize("row", REFERENCE["distances"], ids=lambda row: f"{row['kind']}-{row['schedule']}-{row['c']}")
def test_losses_are_sd_scripts(row):
    places = torch.arange(2 * 4 * 4 * 6, dtype=torch.float64).reshape(2, 4, 4, 6)
    predicted, wanted = (2 * (places * 0.71).sin()).float(), (places * 1.93).cos().float()
    mask = torch.arange(2 * 4 * 6, dtype=torch.float64).reshape(2, 1, 4, 6).mul(0.37).sin().square().float()
    at = At(torch.tensor([400, 999]), stable_diffusion())
    near(objective.example_losses(predicted, wanted, at, huber(row), "epsilon"), row["losses"])
    near(objective.example_losses(predicted, wanted, at, huber(row), "epsilon", mask), row["masked"])


@pytest.mark.parametrize("table", ["borders", "zero-terminal borders"])
def test_huber_borders_are_sd_scripts(table):
    cumprod = stable_diffusion()
    at = At(TIMESTEPS, cumprod if table == "borders" else schedule.rescale_zero_terminal_snr(cumprod))
    for row in REFERENCE[table]:
        near(objective.huber_border(at, huber(row)), row["border"])


@pytest.mark.parametrize("name", ["constant", "exponential", "snr"])
def test_huber_scale_counts_in_every_schedule(name):
    """DIFFERENCES: huber_scale in every schedule."""
    at, config = At(TIMESTEPS, stable_diffusion()), LossConfig(kind="huber", huber_schedule=name)
    scaled = objective.huber_border(at, replace(config, huber_scale=3.0))
    torch.testing.assert_close(scaled, 3 * objective.huber_border(at, config))


def test_small_differences_keep_their_digits():
    predicted, wanted = torch.full((1, 1, 1, 1), 1e-5), torch.zeros(1, 1, 1, 1)
    at = At(torch.tensor([0]), torch.tensor([0.5]))
    config = LossConfig(kind="huber", huber_schedule="constant", huber_c=1.0)
    found = objective.example_losses(predicted, wanted, at, config, "epsilon")
    torch.testing.assert_close(found, torch.tensor([1e-10]), rtol=1e-4, atol=0)


# --- masks


def test_mask_weights_are_worked_by_hand():
    mask = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    assert objective.mask_weights(mask, LossConfig()).flatten().tolist() == mask.flatten().tolist()
    lifted = objective.mask_weights(mask, LossConfig(mask_minimum=0.2)).view(2, 4)
    torch.testing.assert_close(lifted, torch.tensor([[1.0, 0.6, 0.2, 0.2], [0.2] * 4]))
    even = objective.mask_weights(mask, LossConfig(normalize_masks=True)).view(2, 4)
    torch.testing.assert_close(even, torch.tensor([[8 / 3, 4 / 3, 0.0, 0.0], [0.0] * 4]))
    both = objective.mask_weights(mask, LossConfig(mask_minimum=0.2, normalize_masks=True)).view(2, 4)
    torch.testing.assert_close(both, torch.tensor([[2.0, 1.2, 0.4, 0.4], [1.0] * 4]))


def test_black_is_not_learned_and_white_is_as_without_mask():
    predicted = torch.arange(16.0).reshape(1, 4, 2, 2).requires_grad_()
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
    at, wanted = At(torch.tensor([0]), torch.tensor([0.5])), torch.zeros(1, 4, 2, 2)
    objective.example_losses(predicted, wanted, at, LossConfig(), "epsilon", mask).sum().backward()
    torch.testing.assert_close(predicted.grad, 2 * predicted.detach() / 16 * mask)
    white = objective.example_losses(predicted, wanted, at, LossConfig(), "epsilon", torch.ones_like(mask))
    assert torch.equal(white, objective.example_losses(predicted, wanted, at, LossConfig(), "epsilon"))


# --- types and gradients


@pytest.mark.parametrize("kind", ["l2", "l1", "huber", "smooth-l1"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_arithmetic_is_float32_and_gradients_flow(kind, dtype):
    generator = torch.Generator().manual_seed(3)
    predicted = (300 * torch.randn(3, 4, 5, 6, generator=generator)).to(dtype).requires_grad_()
    wanted = torch.randn(3, 4, 5, 6, generator=generator).to(dtype)
    mask = torch.rand(3, 1, 5, 6, generator=generator).to(dtype)
    at = At(torch.tensor([0, 500, 999]), schedule.rescale_zero_terminal_snr(stable_diffusion()))
    config = LossConfig(kind=kind, min_snr_gamma=5.0, v_like=0.1, debiased=True, mask_minimum=0.1)
    found = objective.example_losses(predicted, wanted, at, config, "epsilon", mask)
    assert found.dtype == torch.float32 and found.shape == (3,) and found.isfinite().all()
    exact = objective.example_losses(predicted.float(), wanted.float(), at, config, "epsilon", mask.float())
    assert torch.equal(found, exact)  # 300² would overflow fp16
    found.sum().backward()
    assert predicted.grad is not None and predicted.grad.isfinite().all() and (predicted.grad != 0).any(dim=1).all()


def test_an_example_s_loss_does_not_depend_on_its_batch():
    places = torch.arange(3 * 4 * 4 * 4.0).reshape(3, 4, 4, 4)
    predicted, wanted, at = places.sin(), places.cos(), torch.tensor([10, 500, 900])
    config = LossConfig(kind="huber", min_snr_gamma=5.0, normalize_masks=True)
    mask = places[:, :1].mul(0.7).sin().square()
    whole = objective.example_losses(predicted, wanted, At(at, stable_diffusion()), config, "v", mask)
    for index in range(3):
        one = slice(index, index + 1)
        alone = objective.example_losses(
            predicted[one], wanted[one], At(at[one], stable_diffusion()), config, "v", mask[one]
        )
        torch.testing.assert_close(alone, whole[one])


# --- combinations


def test_sensible_settings_have_no_problem():
    loss = LossConfig(kind="huber", huber_scale=2.0, min_snr_gamma=5.0, masked=True, normalize_masks=True)
    noise = NoiseConfig(offset=0.05, offset_random=True, adaptive_offset=0.01, input_perturbation=0.1)
    assert combinations.problems(loss, noise, "epsilon") == ()
    assert combinations.problems(LossConfig(), NoiseConfig(zero_terminal_snr="on"), "v") == ()


@pytest.mark.parametrize(
    ("loss", "noise", "prediction", "severity", "where"),
    [
        ({"v_like": 0.5}, {}, "v", "error", "loss.v_like"),
        ({"scale_v_like_noise": True}, {}, "epsilon", "error", "loss.scale_v_like_noise"),
        ({"min_snr_gamma": 5.0, "debiased": True}, {}, "v", "warning", "loss.debiased"),
        ({}, {"minimum_timestep": 500, "maximum_timestep": 500}, "v", "error", "noise.minimum_timestep"),
        ({}, {"zero_terminal_snr": "on"}, "epsilon", "warning", "noise.zero_terminal_snr"),
        ({"min_snr_gamma": 5.0}, {"zero_terminal_snr": "on"}, "v", "warning", "loss.min_snr_gamma"),
        ({"scale_v_like_noise": True}, {"zero_terminal_snr": "on"}, "v", "warning", "loss.scale_v_like_noise"),
        ({}, {"adaptive_offset": 0.1}, "epsilon", "error", "noise.adaptive_offset"),
        ({}, {"offset": 0.1, "pyramid_iterations": 6}, "epsilon", "warning", "noise.pyramid_iterations"),
        ({}, {"offset_random": True}, "epsilon", "note", "noise.offset_random"),
        ({}, {"input_perturbation_random": True}, "epsilon", "note", "noise.input_perturbation_random"),
        ({}, {"timestep_bias": 1.0}, "epsilon", "note", "noise.timestep_bias"),
        ({"mask_minimum": 0.1}, {}, "epsilon", "note", "loss.mask_minimum"),
        ({"normalize_masks": True}, {}, "epsilon", "note", "loss.normalize_masks"),
        ({"huber_scale": 2.0}, {}, "epsilon", "note", "loss.huber_scale"),
    ],
)
def test_contradictions_are_named(loss, noise, prediction, severity, where):
    found = combinations.problems(LossConfig(**loss), NoiseConfig(**noise), prediction)
    assert [(problem.severity, problem.where) for problem in found] == [(severity, where)]
    assert bool(found[0].fix) == (severity != "note")
