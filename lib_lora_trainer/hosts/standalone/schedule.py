"""The noise schedule of a checkpoint file, for training and for sampling."""

from __future__ import annotations

import torch

from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.diffusion.schedule import rescale_zero_terminal_snr
from lib_lora_trainer.hosts.noise_schedule import ends_in_noise
from lib_lora_trainer.hosts.standalone.checkpoint import CheckpointFile

_STORED = "alphas_cumprod"
_LAST = 4.8973451890853435e-08  # the WebUI's last value instead of 0, for which sampling has no formulas


def read_schedule(file: CheckpointFile, betas: torch.Tensor) -> torch.Tensor:
    """Return ᾱ, (1000,) float64: the file's own if it has one, else the products of 1 - `betas`.

    SD1 and SD2 files bring the schedule along, which the WebUI loads over that of the yaml; for SDXL it uses Stable
    Diffusion's own. Raises HostRefusal for values that are no schedule.
    """
    if file.family == "sdxl" or file.shapes.get(_STORED) != tuple(betas.shape):
        return torch.cumprod(1 - betas, 0)
    from safetensors import safe_open

    with safe_open(str(file.path), framework="pt") as stream:
        alphas: torch.Tensor = stream.get_tensor(_STORED).double()
    falls = bool((alphas.diff() <= 0).all())
    if not falls or not bool(torch.isfinite(alphas).all()) or alphas[0] > 1 or alphas[-1] < 0:
        raise HostRefusal(
            f"Checkpoint {file.path.name}: its noise schedule ({_STORED}) does not fall from 1 to 0; the file is "
            "damaged. Download it again, or remove that tensor."
        )
    return alphas


def zero_terminal_snr(file: CheckpointFile, alphas: torch.Tensor) -> bool:
    """Tell whether the checkpoint was trained on a schedule that ends in pure noise: the mark `ztsnr`, or its own."""
    return "ztsnr" in file.shapes or ends_in_noise(alphas)


def sampling_betas(alphas: torch.Tensor, zero_terminal: bool) -> torch.Tensor:
    """Return the variances (1000,) float64 to sample with: the schedule stretched to pure noise where it has to be."""
    if zero_terminal:
        alphas = rescale_zero_terminal_snr(alphas).double()
        alphas[-1] = _LAST
    before = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
    return 1 - alphas / before
