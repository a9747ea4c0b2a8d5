"""The VAE's view of every picture: computed once and kept, in memory or on disk, or anew for each exposure."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from lib_lora_trainer.base.errors import NumericalError
from lib_lora_trainer.base.events import Note, Phase
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset import augment
from lib_lora_trainer.dataset.augment import Address
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.digests import ContentDigests
from lib_lora_trainer.dataset.faces import face_in
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.masks import load_mask
from lib_lora_trainer.dataset.pixels import PIPELINE, load_pixels
from lib_lora_trainer.dataset.views import View
from lib_lora_trainer.hosts.api import Lease, Posterior
from lib_lora_trainer.train.ahead import Ahead
from lib_lora_trainer.train.processes import Processes
from lib_lora_trainer.train.stores import DiskStore, MemoryStore, Store, Tensors, key_of

logger = logging.getLogger(__name__)
SAID = 5  # damaged files named


@dataclass(frozen=True)
class Exposure:
    """One showing of a view. address: only used by what differs from one showing to the next."""

    view: int
    flipped: bool
    address: Address


@dataclass(frozen=True)
class Encoded:
    """What training sees of a picture in one exposure.

    posterior: of the picture as shown, one example; mask: (1, 1, h, w) float32 in [0, 1], None to learn all of it.
    placement: the window shown, before mirroring.
    """

    posterior: Posterior
    mask: torch.Tensor | None
    placement: Placement


@dataclass(frozen=True)
class _Dataset:
    items: Sequence[Item]
    views: Sequence[View]
    rank: int
    count: int


class LatentCache:
    """Encodes pictures and keeps the results as `data.cache` says.

    Kept latents are found by everything that shapes them: the picture's content, its placement, mirrored or not, the
    VAE's weights, the latents' scale and the version of the way from file to pixels. Names and dates play no part, so
    nothing kept is ever stale. Mean and standard deviation are kept, so that training draws from the VAE's distribution
    anew each time instead of from one frozen sample.
    """

    def __init__(self, data: DataConfig, folder: Path, lease: Lease, masked: bool = False) -> None:
        """folder: for what is kept on disk. masked: whether masks are wanted."""
        self.digests = ContentDigests()
        self._data = data
        self._lease = lease
        self._masked = masked
        stores: dict[str, Store] = {"memory": MemoryStore(), "disk": DiskStore(folder)}
        self._store = stores.get(data.cache)
        self._vae = lease.identity("vae") if data.cache == "disk" else ""
        self._dataset = _Dataset((), (), 0, 1)
        self._ahead: Ahead[Exposure, NDArray[np.uint8]] = Ahead(self._shown_pixels)

    def __enter__(self) -> LatentCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread that decodes ahead."""
        self._ahead.close()

    def fill(self, items: Sequence[Item], views: Sequence[View], group: Processes) -> Iterator[Phase | Note]:
        """Say what will be asked for, and encode what is to be kept and is not kept yet.

        Every view, and its mirror image if it may be mirrored. On disk each of several processes does its share, and
        all return when all are done. Damaged files are made anew, which is said.
        Raises NumericalError that names the picture whose latents are not finite, DataError for unreadable files.
        """
        self._dataset = _Dataset(items, views, group.rank, group.count)
        if self._store is None:
            return
        wanted = [
            Exposure(view, flipped, Address(0, 0))
            for view in range(len(views))
            for flipped in ((False, True) if views[view].mirrored else (False,))
        ]
        if self._data.cache == "disk":
            wanted = yield from self._not_kept(wanted[group.rank :: group.count])
        with Ahead(self._shown_pixels) as ahead:
            ahead.expect(wanted)
            for done, exposure in enumerate(wanted):
                yield Phase("caching latents", done, len(wanted))
                self._keep(exposure, ahead.take(exposure))
        yield Phase("caching latents", len(wanted), len(wanted))
        group.wait()

    def _not_kept(self, wanted: Sequence[Exposure]) -> Generator[Phase | Note, None, list[Exposure]]:
        """Return those of which no whole file is there."""
        assert self._store is not None
        missing, damaged = [], []
        for done, exposure in enumerate(wanted):
            yield Phase("looking up latents", done, len(wanted))
            key = self._key(exposure)
            condition = self._store.condition(key)
            if condition != "kept":
                missing.append(exposure)
            if condition == "damaged":
                damaged.append(self._store.describe(key))
        if damaged:
            more = f" and {len(damaged) - SAID} more" if len(damaged) > SAID else ""
            names = f"{', '.join(damaged[:SAID])}{more}"
            yield Note("warning", f"{len(damaged)} files of kept latents are damaged and are made anew: {names}.")
        return missing

    def expect(self, exposures: Iterable[Exposure]) -> None:
        """Say what will be asked for next, in order, so that it is decoded meanwhile; ignored where it is kept."""
        if self._store is None:
            self._ahead.expect(exposures)

    @property
    def share(self) -> tuple[int, int]:
        """The number of this process and how many there are."""
        return self._dataset.rank, self._dataset.count

    def get(self, exposure: Exposure) -> Encoded:
        """Return one exposure of a view. Raises as `fill`."""
        view = self._dataset.views[exposure.view]
        if self._store is None:
            posterior = self._encode(exposure, self._ahead.take(exposure))
            placement = self._placement(exposure)
            return Encoded(posterior, self._mask(exposure, placement), placement)
        kept = self._store.read(self._key(exposure)) or self._anew(exposure)
        return Encoded(Posterior(kept["mean"], kept["std"]), self._kept_mask(exposure), view.placement)

    def _anew(self, exposure: Exposure) -> Tensors:
        assert self._store is not None
        logger.warning("%s: is missing or damaged and is made anew.", self._store.describe(self._key(exposure)))
        return self._keep(exposure, self._shown_pixels(exposure))

    def _keep(self, exposure: Exposure, pixels: NDArray[np.uint8]) -> Tensors:
        assert self._store is not None
        posterior = self._encode(exposure, pixels)
        tensors = {"mean": posterior.mean, "std": posterior.std}
        self._store.write(self._key(exposure), tensors)
        return tensors

    def _encode(self, exposure: Exposure, pixels: NDArray[np.uint8]) -> Posterior:
        try:
            # One at a time, so that no picture's latents depend on its neighbours in a batch.
            with torch.no_grad():
                return self._lease.encode_images(to_tensor(pixels))
        except NumericalError as error:
            raise NumericalError(f"{self._item(exposure).path}: {error}") from error

    def _item(self, exposure: Exposure) -> Item:
        return self._dataset.items[self._dataset.views[exposure.view].item]

    def _shown_pixels(self, exposure: Exposure) -> NDArray[np.uint8]:
        pixels = load_pixels(self._item(exposure).path, self._placement(exposure))
        if self._store is None and self._data.color:
            pixels = augment.color(pixels, exposure.address)
        return pixels[:, ::-1] if exposure.flipped else pixels

    def _placement(self, exposure: Exposure) -> Placement:
        placement = self._dataset.views[exposure.view].placement
        if self._store is not None:
            return placement
        item = self._item(exposure)
        return augment.crop(placement, face_in(item.path, item.width, item.height), self._data, exposure.address)

    def _mask(self, exposure: Exposure, placement: Placement) -> torch.Tensor | None:
        item = self._item(exposure)
        mask = load_mask(item, self._data.sources[item.source].alpha_masks, placement) if self._masked else None
        if mask is None:
            return None
        shown = mask[:, ::-1] if exposure.flipped else mask
        return torch.from_numpy(np.ascontiguousarray(shown))[None, None]

    def _kept_mask(self, exposure: Exposure) -> torch.Tensor | None:
        assert self._store is not None
        item = self._item(exposure)
        alpha = self._data.sources[item.source].alpha_masks
        if not self._masked or (item.mask is None and not alpha):
            return None
        placement = self._dataset.views[exposure.view].placement
        facts = {
            "mask": self.digests.of(item.mask or item.path),
            "alpha": item.mask is None,
            "flipped": exposure.flipped,
            "placement": asdict(placement),
            "pipeline": PIPELINE,
        }
        kept = self._store.read(key_of(facts))
        if kept is not None:
            return kept["mask"]
        mask = self._mask(exposure, placement)
        assert mask is not None
        self._store.write(key_of(facts), {"mask": mask})
        return mask

    def _key(self, exposure: Exposure) -> str:
        facts = {
            "picture": self.digests.of(self._item(exposure).path),
            "placement": asdict(self._dataset.views[exposure.view].placement),
            "flipped": exposure.flipped,
            "vae": self._vae,
            "scale": self._lease.info.latent_scale,
            "pipeline": PIPELINE,
        }
        return key_of(facts)


def to_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels (H, W, 3) uint8 as the VAE takes them: (1, 3, H, W) float32 in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 127.5 - 1
    return tensor.unsqueeze(0).contiguous()
