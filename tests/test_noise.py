"""Addressed noise and timesteps: independent of the batch and of other options, with the distributions they claim."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest
import torch

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.loss import NoiseConfig
from lib_lora_trainer.diffusion import noise, schedule

REFERENCE = json.loads((Path(__file__).parent / "reference" / "loss.json").read_text(encoding="utf-8"))
NAMES = {
    "noise_offset": "offset",
    "noise_offset_random_strength": "offset_random",
    "adaptive_noise_scale": "adaptive_offset",
    "multires_noise_iterations": "pyramid_iterations",
    "multires_noise_discount": "pyramid_discount",
    "ip_noise_gamma": "input_perturbation",
    "ip_noise_gamma_random_strength": "input_perturbation_random",
}
OPTIONS = {
    "plain": NoiseConfig(),
    "offset": NoiseConfig(offset=0.1),
    "random offset": NoiseConfig(offset=0.1, offset_random=True),
    "adaptive offset": NoiseConfig(offset=0.1, adaptive_offset=0.3),
    "pyramid": NoiseConfig(pyramid_iterations=6),
    "perturbation": NoiseConfig(input_perturbation=0.1),
    "random perturbation": NoiseConfig(input_perturbation=0.1, input_perturbation_random=True),
    "everything": NoiseConfig(
        offset=0.1,
        offset_random=True,
        adaptive_offset=0.3,
        pyramid_iterations=6,
        input_perturbation=0.1,
        input_perturbation_random=True,
    ),
}


def latents(count: int, height: int = 8, width: int = 6) -> torch.Tensor:
    return torch.randn(count, 4, height, width, generator=torch.Generator().manual_seed(5)) + 0.5


# --- noise


@pytest.mark.parametrize("name", REFERENCE["noise"]["options"])
def test_noise_is_sd_scripts(name):
    """Its own functions, fed with our draws; for one example, as random strengths and std are the batch's there."""
    table, row = REFERENCE["noise"], REFERENCE["noise"]["options"][name]
    shape = tuple(table["shape"])
    latent = (torch.arange(math.prod(shape), dtype=torch.float64) * 0.37).sin().add(0.4).reshape(1, *shape).float()
    latent += torch.tensor([-1.0, 0.0, 0.5, 2.0]).view(1, 4, 1, 1)
    config = replace(NoiseConfig(), **{NAMES[key]: value for key, value in row["options"].items()})
    pair = noise.sample(latent, config, table["seed"], [table["position"]])
    torch.testing.assert_close(pair.target.flatten(), torch.tensor(row["target"]), rtol=1e-5, atol=1e-6)
    assert not torch.equal(pair.target, pair.input) or not config.input_perturbation
    alpha_bar = torch.tensor(REFERENCE["alphas_cumprod"])[REFERENCE["timesteps"].index(row["timestep"])]
    alpha, sigma = schedule.alpha_sigma(alpha_bar.view(1), torch.tensor([0]))
    noisy = schedule.add_noise(latent, pair.input, alpha, sigma)
    torch.testing.assert_close(noisy.flatten(), torch.tensor(row["noisy"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
def test_an_example_has_the_same_noise_alone_and_in_a_batch(config):
    """Entries of DIFFERENCES: random strengths per example; standard deviation of pyramid noise per example."""
    batch = latents(5, 64, 48)
    whole = noise.sample(batch, config, 3, range(10, 15))
    for index in range(5):
        alone = noise.sample(batch[index : index + 1], config, 3, [10 + index])
        assert torch.equal(alone.target[0], whole.target[index]) and torch.equal(alone.input[0], whole.input[index])
    turned = noise.sample(batch.flip(0), config, 3, range(14, 9, -1))
    assert torch.equal(turned.input.flip(0), whole.input)


def test_examples_positions_and_runs_differ():
    batch = latents(1).expand(3, -1, -1, -1)
    for config in OPTIONS.values():
        found = noise.sample(batch, config, 3, [0, 1, 2])
        assert not torch.equal(found.input[0], found.input[1])
        assert not torch.equal(found.input, noise.sample(batch, config, 4, [0, 1, 2]).input)


def test_options_change_no_draw_of_the_others():
    batch, positions = latents(3), [4, 5, 6]

    def sample(**settings: object) -> noise.NoisePair:
        return noise.sample(batch, NoiseConfig(**settings), 3, positions)

    plain = sample().target
    offset = sample(offset=0.1).target - plain
    perturbed = sample(input_perturbation=0.2)
    assert torch.equal(perturbed.target, plain)
    both = sample(offset=0.1, input_perturbation=0.2, input_perturbation_random=True)
    torch.testing.assert_close(both.target - plain, offset)
    # A random strength scales the same values that a fixed one does, by one factor per example in [0, 1).
    ratio = (both.input - both.target) / (perturbed.input - perturbed.target)
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), rtol=1e-3, atol=1e-3)
    assert ratio[:, 0, 0, 0].unique().numel() == 3 and (ratio >= 0).all() and (ratio < 1).all()
    shares = (sample(offset=0.1, offset_random=True).target - plain)[:, :, 0, 0] / offset[:, :, 0, 0]
    torch.testing.assert_close(shares, shares[:, :1].expand(-1, 4), rtol=1e-3, atol=1e-3)
    assert shares[:, 0].unique().numel() == 3
    # Timesteps and other purposes have addresses of their own.
    times = noise.timesteps(1000, NoiseConfig(), 3, positions)
    assert torch.equal(times, noise.timesteps(1000, OPTIONS["everything"], 3, positions))
    assert not torch.equal(noise.normal((4, 8, 6), 3, "posterior", positions), plain)


def test_without_options_target_and_input_are_one_normal_tensor():
    pair = noise.sample(latents(2), NoiseConfig(), 3, [0, 1])
    assert pair.target is pair.input
    assert torch.equal(pair.target, noise.normal((4, 8, 6), 3, "noise", [0, 1]))


def test_offset_shifts_each_channel_by_one_value():
    shift = noise.sample(latents(2), NoiseConfig(offset=0.5), 3, [0, 1]).target - noise.normal(
        (4, 8, 6), 3, "noise", [0, 1]
    )
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift))
    torch.testing.assert_close(shift[:, :, :1, :1], 0.5 * noise.normal((4, 1, 1), 3, "offset", [0, 1]))


def test_adaptive_offset_follows_the_latents_mean_and_stops_at_0():
    means = torch.tensor([0.0, 1.0, -1.0, 4.0]).view(1, 4, 1, 1)
    latent = means.expand(1, 4, 8, 6)
    values, plain = noise.normal((4, 1, 1), 3, "offset", [0]), noise.normal((4, 8, 6), 3, "noise", [0])
    for scale, strengths in ((0.2, [0.1, 0.3, 0.3, 0.9]), (-0.05, [0.1, 0.05, 0.05, 0.0])):
        found = noise.sample(latent, NoiseConfig(offset=0.1, adaptive_offset=scale), 3, [0]).target - plain
        wanted = values * torch.tensor(strengths).view(1, 4, 1, 1)
        torch.testing.assert_close(found, wanted.expand_as(found), rtol=1e-5, atol=1e-6)


def test_pyramid_has_coarse_structure_and_unit_variance():
    plain = noise.sample(latents(1, 64, 64), NoiseConfig(), 3, [0]).target
    coarse = noise.sample(latents(1, 64, 64), NoiseConfig(pyramid_iterations=8, pyramid_discount=0.9), 3, [0]).target
    assert coarse.std().item() == pytest.approx(1.0, abs=1e-5)

    def blocks(values: torch.Tensor) -> float:
        return torch.nn.functional.avg_pool2d(values, 16).std().item()

    assert blocks(plain) < 0.1 < 0.3 < blocks(coarse)
    # Layers end at one pixel, so that more of them change nothing.
    few, many = (noise.sample(latents(1), NoiseConfig(pyramid_iterations=count), 3, [0]).target for count in (8, 16))
    assert torch.equal(few, many)


def test_perturbation_changes_the_input_alone_by_its_gamma():
    pair = noise.sample(latents(4, 32, 32), NoiseConfig(input_perturbation=0.1), 3, range(4))
    difference = pair.input - pair.target
    assert difference.std().item() == pytest.approx(0.1, rel=0.05)
    assert abs(torch.corrcoef(torch.stack([difference.flatten(), pair.target.flatten()]))[0, 1]) < 0.05


def test_noise_is_float32_and_detached_whatever_the_latents():
    half = latents(2).to(torch.float16).requires_grad_()
    pair = noise.sample(half, OPTIONS["everything"], 3, [0, 1])
    assert pair.target.dtype == pair.input.dtype == torch.float32 and not pair.input.requires_grad


# --- timesteps


def draws(config: NoiseConfig, count: int = 20_000, steps: int = 1000) -> torch.Tensor:
    return noise.timesteps(steps, config, 3, range(count))


@pytest.mark.parametrize("kind", ["uniform", "logit-normal", "cosine"])
def test_timesteps_are_addressed_and_within_their_bounds(kind):
    config = NoiseConfig(timesteps=kind, minimum_timestep=200, maximum_timestep=210)
    found = draws(config, 3000)
    assert found.dtype == torch.int64 and set(found.tolist()) == set(range(200, 210))
    assert noise.timesteps(1000, config, 3, [17, 5]).tolist() == [found[17].item(), found[5].item()]
    assert not torch.equal(found, noise.timesteps(1000, config, 4, range(3000)))
    short = noise.timesteps(50, NoiseConfig(timesteps=kind), 3, range(3000))
    assert set(short.tolist()) <= set(range(50)) and short.max() > 45


def test_uniform_timesteps_are_the_address_itself():
    assert noise.timesteps(1000, NoiseConfig(), 3, [8]).tolist() == [derive(3, "timestep", 8) % 1000]
    counts = Counter((draws(NoiseConfig()) // 100).tolist())
    assert all(abs(counts[tenth] - 2000) < 200 for tenth in range(10))  # 4.7 standard deviations


@pytest.mark.parametrize("bias", [-1.5, 0.0, 0.7])
def test_logit_normal_timesteps_have_its_quantiles(bias):
    found = draws(NoiseConfig(timesteps="logit-normal", timestep_bias=bias)).double() / 1000
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        wanted = 1 / (1 + math.exp(-(bias + NormalDist().inv_cdf(share))))
        assert (found < wanted).double().mean().item() == pytest.approx(share, abs=0.012)


def test_cosine_timesteps_have_its_density():
    # CosMap: density 2 / (π - 2π t + 2π t²), so (2/π) arctan(t / (1 - t)) of the draws lie below t.
    found = draws(NoiseConfig(timesteps="cosine")).double() / 1000
    for place in (0.1, 0.3, 0.5, 0.8):
        share = 2 / math.pi * math.atan(place / (1 - place))
        assert (found < place).double().mean().item() == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("kind", ["logit-normal", "cosine"])
@pytest.mark.parametrize("place", [0, 2**63 - 1])
def test_extreme_addresses_stay_within_the_schedule(kind, place, monkeypatch):
    monkeypatch.setattr(noise, "derive", lambda *_address: place)
    for bias in (-5.0, 5.0):
        found = noise.timesteps(1000, NoiseConfig(timesteps=kind, timestep_bias=bias), 3, [0])
        assert 0 <= found.item() < 1000


def test_an_empty_interval_is_refused():
    """Entry of DIFFERENCES: no fixed timestep."""
    with pytest.raises(ValueError, match="from 500 to below 500"):
        noise.timesteps(1000, NoiseConfig(minimum_timestep=500, maximum_timestep=500), 3, [0])
    with pytest.raises(ValueError, match="from 500 to below 100"):
        noise.timesteps(100, NoiseConfig(minimum_timestep=500), 3, [0])
