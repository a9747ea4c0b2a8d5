"""Writes loss.json: what sd-scripts computes for losses, weights, schedules and noise.

python tests/reference/loss.py PATH_OF_SD_SCRIPTS

The numbers come from the checkout's own functions, which run unchanged. Libraries that it imports and that these
functions do not need are replaced by empty modules when they are missing; the file lists them. Its random numbers are
replaced by ours, addressed by seed, purpose and position, so that noise can be compared value by value.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import random
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest import mock

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from lib_lora_trainer.base.seeds import derive  # noqa: E402  (needs the path above)

TIMESTEPS = [0, 1, 99, 250, 400, 500, 600, 741, 900, 990, 998, 999]
SEED, POSITION = 7, 12
SHAPE = (4, 8, 7)
NOISES: dict[str, dict[str, Any]] = {
    "offset": {"noise_offset": 0.1},
    "random offset": {"noise_offset": 0.1, "noise_offset_random_strength": True},
    "adaptive offset": {"noise_offset": 0.05, "adaptive_noise_scale": 0.2},
    "adaptive offset below 0": {"noise_offset": 0.05, "adaptive_noise_scale": -0.2},
    "pyramid": {"multires_noise_iterations": 6, "multires_noise_discount": 0.3},
    "offset and pyramid": {"noise_offset": 0.1, "multires_noise_iterations": 2, "multires_noise_discount": 0.8},
    "input perturbation": {"ip_noise_gamma": 0.1},
    "random input perturbation": {"ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True},
}
TIMESTEP = 741  # as minimum and maximum, which sd-scripts takes for one fixed timestep
OFF = {
    "noise_offset": None,
    "noise_offset_random_strength": False,
    "adaptive_noise_scale": None,
    "multires_noise_iterations": None,
    "ip_noise_gamma": None,
    "ip_noise_gamma_random_strength": False,
    "min_timestep": TIMESTEP,
    "max_timestep": TIMESTEP,
}
HUBERS = [
    ("huber", "constant", 0.1, 1.0),
    ("huber", "exponential", 0.1, 1.0),
    ("huber", "exponential", 0.3, 2.0),
    ("huber", "snr", 0.1, 1.0),
    ("smooth_l1", "constant", 0.05, 3.0),
    ("smooth_l1", "snr", 0.4, 1.0),
]


class Everything(type):
    """The type of classes that have every attribute; inspection, which asks for __file__ and the like, gets nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=Everything):
    """Stands for whatever is taken from a missing library: it can be called, subclassed and asked for attributes."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(Anything, name)


def load(checkout: Path) -> tuple[Any, Any, list[str]]:
    """Return sd-scripts' modules custom_train_functions and train_util, and the libraries replaced by empty ones."""
    sys.path.insert(0, str(checkout))
    replaced: list[str] = []
    while True:
        try:
            functions = importlib.import_module("library.custom_train_functions")
            return functions, importlib.import_module("library.train_util"), replaced
        except ModuleNotFoundError as error:
            missing = str(error.name)
            if missing in replaced or missing.startswith("library"):
                raise
            replaced.append(missing)
            empty = types.ModuleType(missing)
            empty.__getattr__ = lambda name: getattr(Anything, name)  # type: ignore[method-assign]
            empty.__path__ = []
            empty.__spec__ = ModuleSpec(missing, None, is_package=True)
            sys.modules[missing] = empty
            for name in [name for name in sys.modules if name.startswith("library")]:
                del sys.modules[name]


def scheduler(functions: Any, rescaled: str) -> Any:
    """Return the noise scheduler of train_network.py; rescaled: no, after (as there) or before SNR is computed."""
    from diffusers import DDPMScheduler

    made = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False
    )
    if rescaled == "before":
        functions.fix_noise_scheduler_betas_for_zero_terminal_snr(made)
    functions.prepare_scheduler_for_custom_training(made, "cpu")
    if rescaled == "after":
        functions.fix_noise_scheduler_betas_for_zero_terminal_snr(made)
    return made


def snr_weights(functions: Any, made: Any, timesteps: list[int]) -> dict[str, list[float]]:
    """Return the factor of a loss of 1 under every SNR weighting, per timestep."""
    one, at = torch.ones(len(timesteps)), torch.tensor(timesteps)
    found = {}
    for name, v in (("epsilon", False), ("v", True)):
        found[f"min-SNR 5, {name}"] = functions.apply_snr_weight(one, at, made, 5.0, v)
        found[f"min-SNR 1.5, {name}"] = functions.apply_snr_weight(one, at, made, 1.5, v)
        found[f"debiased, {name}"] = functions.apply_debiased_estimation(one, at, made, v)
    found["v-like 0.5, epsilon"] = functions.add_v_prediction_like_loss(one, at, made, 0.5)
    found["scale v like noise, v"] = functions.scale_v_prediction_loss_like_noise_prediction(one, at, made)
    return {name: numbers(values) for name, values in found.items()}


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a prediction, a target and a mask for two examples, from sines so that no generator is involved."""
    places = torch.arange(2 * 4 * 4 * 6, dtype=torch.float64).reshape(2, 4, 4, 6)
    mask = torch.arange(2 * 4 * 6, dtype=torch.float64).reshape(2, 1, 4, 6).mul(0.37).sin().square()
    return (2 * (places * 0.71).sin()).float(), (places * 1.93).cos().float(), mask.float()


def distances(functions: Any, util: Any, made: Any) -> list[dict[str, Any]]:
    """Return the loss of both examples for every kind of loss, plain and masked."""
    predicted, wanted, mask = example()
    at = torch.tensor([400, 999])
    rows = []
    for kind, schedule, c, scale in [("l2", "snr", 0.1, 1.0), ("l1", "snr", 0.1, 1.0), *HUBERS]:
        arguments = argparse.Namespace(loss_type=kind, huber_schedule=schedule, huber_c=c, huber_scale=scale)
        border = util.get_huber_threshold_if_needed(arguments, at, made)
        loss = util.conditional_loss(predicted, wanted, kind, "none", border)
        masked = functions.apply_masked_loss(loss, {"conditioning_images": (2 * mask - 1).expand(-1, 3, -1, -1)})
        rows.append(
            {
                "kind": kind,
                "schedule": schedule,
                "c": c,
                "scale": scale,
                "border": None if border is None else numbers(border),
                "losses": numbers(loss.mean(dim=(1, 2, 3))),
                "masked": numbers(masked.mean(dim=(1, 2, 3))),
            }
        )
    return rows


def borders(util: Any, made: Any) -> list[dict[str, Any]]:
    """Return the border of huber losses per timestep."""
    rows = []
    for kind, schedule, c, scale in HUBERS:
        arguments = argparse.Namespace(loss_type=kind, huber_schedule=schedule, huber_c=c, huber_scale=scale)
        found = util.get_huber_threshold_if_needed(arguments, torch.tensor(TIMESTEPS), made)
        rows.append({"schedule": schedule, "c": c, "scale": scale, "border": numbers(found)})
    return rows


def latent() -> torch.Tensor:
    """Return one latent of SHAPE whose channels have different means, (1, C, h, w)."""
    count = SHAPE[0] * SHAPE[1] * SHAPE[2]
    return (torch.arange(count, dtype=torch.float64) * 0.37).sin().add(0.4).reshape(1, *SHAPE).float() + torch.tensor(
        [-1.0, 0.0, 0.5, 2.0]
    ).view(1, 4, 1, 1)


def noises(util: Any, made: Any) -> dict[str, dict[str, Any]]:
    """Return target noise and noisy latents for every option of the noise, drawn from our addresses."""
    found = {}
    for name, options in NOISES.items():
        with addressed(options):
            target, noisy, timesteps = util.get_noise_noisy_latents_and_timesteps(
                argparse.Namespace(**{**OFF, **options}), made, latent()
            )
        found[name] = {
            "options": options,
            "timestep": int(timesteps[0]),
            "target": numbers(target.flatten()),
            "noisy": numbers(noisy.flatten()),
        }
    return found


@contextmanager
def addressed(options: dict[str, Any]) -> Iterator[None]:
    """Give sd-scripts the random numbers of our addresses, in the order in which it draws them."""
    rand, randn = torch.rand, torch.randn

    def generator(purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(SEED, purpose, POSITION))

    def normal(purpose: str) -> torch.Tensor:
        return randn((1, *SHAPE), generator=generator(purpose))

    switches = {
        "noise_offset_random_strength": "offset-strength",
        "ip_noise_gamma_random_strength": "input-perturbation-strength",
    }
    strengths = [rand(1, generator=generator(name)) for switch, name in switches.items() if options.get(switch)]
    pyramid = generator("pyramid")

    def coarse(*shape: Any, **_options: Any) -> torch.Tensor:
        if isinstance(shape[0], tuple):  # the offset's values; layers of the pyramid give their sides one by one
            return randn(shape[0], generator=generator("offset"))
        return randn(shape, generator=pyramid)

    with (
        mock.patch.object(torch, "randn_like", side_effect=[normal("noise"), normal("input-perturbation")]),
        mock.patch.object(torch, "rand", side_effect=strengths),
        mock.patch.object(torch, "randn", side_effect=coarse),
        mock.patch.object(random, "random", side_effect=lambda: rand((), generator=pyramid).item()),
    ):
        yield


def numbers(values: torch.Tensor) -> list[float | str]:
    """Return values with 8 significant digits; infinite and undefined ones as text, which JSON does not know."""
    return [float(f"{value:.8g}") if math.isfinite(value) else str(value) for value in values.double().tolist()]


def main() -> None:
    """Write loss.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout.resolve()
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    functions, util, replaced = load(checkout)
    plain, after, before = (scheduler(functions, rescaled) for rescaled in ("no", "after", "before"))
    tables = {
        "source": {
            "repository": "https://github.com/kohya-ss/sd-scripts",
            "commit": commit,
            "torch": torch.__version__,
            "replaced by empty modules": sorted(replaced),
        },
        "timesteps": TIMESTEPS,
        "alphas_cumprod": numbers(plain.alphas_cumprod[TIMESTEPS]),
        "zero-terminal alphas_cumprod": numbers(after.alphas_cumprod[TIMESTEPS]),
        "weights": snr_weights(functions, plain, TIMESTEPS),
        "zero-terminal weights": snr_weights(functions, before, TIMESTEPS),
        "zero-terminal weights, SNR before": snr_weights(functions, after, TIMESTEPS),
        "borders": borders(util, plain),
        "zero-terminal borders": borders(util, after),
        "distances": distances(functions, util, plain),
        "noise": {"seed": SEED, "position": POSITION, "shape": SHAPE, "options": noises(util, plain)},
    }
    text = json.dumps(tables, indent=1)
    # One line per list of numbers.
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text)
    (HERE / "loss.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
