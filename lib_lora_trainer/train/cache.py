"""The VAE's view of every picture, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from lib_lora_trainer.base.errors import NumericalError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.pixels import load_pixels
from lib_lora_trainer.hosts.api import Lease, Posterior

Cache = dict[tuple[int, bool], Posterior]


def to_tensor(path: Path, placement: Placement, flipped: bool) -> torch.Tensor:
    """Return a picture as pixels (1, 3, H, W) float32 in [-1, 1], of the size of its bucket."""
    pixels = torch.from_numpy(load_pixels(path, placement)).permute(2, 0, 1).float() / 127.5 - 1
    return (pixels.flip(2) if flipped else pixels).unsqueeze(0).contiguous()


def fill(
    cache: Cache, lease: Lease, paths: Sequence[Path], placements: Sequence[Placement], flip: bool
) -> Iterator[Phase]:
    """Encode every picture, and its mirror image if `flip`, into `cache` by (index, mirrored).

    Mean and standard deviation are kept, so that training draws from the VAE's distribution anew each time instead of
    from one frozen sample. Raises NumericalError that names the picture.
    """
    wanted = [(index, mirrored) for index in range(len(paths)) for mirrored in ((False, True) if flip else (False,))]
    for done, (index, mirrored) in enumerate(wanted):
        yield Phase("caching latents", done, len(wanted))
        try:
            with torch.no_grad():
                cache[index, mirrored] = lease.encode_images(to_tensor(paths[index], placements[index], mirrored))
        except NumericalError as error:
            raise NumericalError(f"{paths[index]}: {error}") from error
    yield Phase("caching latents", len(wanted), len(wanted))
