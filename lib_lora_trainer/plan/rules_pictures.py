"""What pictures, their sizes, masks and caches contradict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.buckets import resolutions
from lib_lora_trainer.dataset.faces import crops_faces
from lib_lora_trainer.plan.case import Case, named

_SDXL_SIZE = 1024
_SD1_LARGEST = 1024
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def sizes(case: Case) -> Iterator[Problem]:
    """Resolutions that the model was not made for, that are given twice or that nothing is trained at."""
    family, data = case.info.family, case.config.data
    for where, size in _trained_at(case):
        if family == "sdxl" and size < _SDXL_SIZE:
            text = f"{size} is below {_SDXL_SIZE}, where SDXL degrades."
            yield Problem("warning", where, text, f"Use {_SDXL_SIZE} unless memory forbids.")
        if family == "sd1" and size > _SD1_LARGEST:
            yield Problem("warning", where, f"{size} is far above SD1's own.", "Use 512 to 768.")
    longest = 2 * max(size for _, size in _trained_at(case))
    if family == "sdxl" and data.bucket and data.bucket_maximum < longest:
        text = f"{data.bucket_maximum} cuts long pictures down; {longest} leaves them their whole area."
        yield Problem("note", "data.bucket_maximum", text)
    twice = [size for size, count in Counter((data.resolution, *data.more_resolutions)).items() if count > 1]
    if twice:
        text = f"{named([str(size) for size in twice])} is given more than once and counts once."
        yield Problem("note", "data.more_resolutions", text)
    if data.more_resolutions and data.sources and all(source.resolution is not None for source in data.sources):
        text = "has no effect: every source has a resolution of its own."
        yield Problem("note", "data.more_resolutions", text)


def _trained_at(case: Case) -> list[tuple[str, int]]:
    """Return the resolutions that pictures are trained at with their settings."""
    sources = case.config.data.sources
    general = not sources or any(source.resolution is None for source in sources)
    return [entry for entry in resolutions(case.config.data) if general or entry[0].startswith("data.sources[")]


def batches(case: Case) -> Iterator[Problem]:
    """A batch that the whole dataset does not fill, and regularization images that teach nothing."""
    if case.config.training.batch_size > sum(item.repeats for item in case.scan.items) > 0:
        yield Problem("note", "training.batch_size", "is larger than the dataset; the whole epoch is one batch.")
    if case.config.loss.prior_weight == 0 and any(item.regularization for item in case.scan.items):
        text = "is 0, so regularization images take time and teach nothing."
        yield Problem("warning", "loss.prior_weight", text, "Set it to 1, or remove their source.")


def mirroring(case: Case) -> Iterator[Problem]:
    """Mirrored pictures whose subject, or whose captions, may not be symmetric."""
    data = case.config.data
    flipped = [item for item in case.scan.items if _flips(case, item.source)]
    if not flipped:
        return
    own = [f"{where}.flip" for where, source in case.numbered_sources() if source.flip]
    where = "data.flip" if data.flip else own[0]
    sided = sum(bool(_SIDES.search(item.caption)) for item in flipped)
    if sided:
        text = f"pictures are mirrored, and {sided} of their captions say left or right."
        yield Problem("warning", where, text, "Switch it off, or remove those words.")
    else:
        text = "pictures are mirrored: hair partings, scars, badges and writing on one side are lost."
        yield Problem("note", where, text)


def _flips(case: Case, index: int) -> bool:
    own = case.config.data.sources[index].flip
    return case.config.data.flip if own is None else own


def latent_cache(case: Case) -> Iterator[Problem]:
    """Changes of the pixels, which a latent that is kept does not show."""
    data = case.config.data
    if data.cache == "none":
        return
    changing = (
        ("data.color", data.color),
        ("data.random_crop", data.random_crop),
        ("data.face_crop_minimum", crops_faces(data)),
    )
    for where, on in changing:
        if on:
            text = f"needs every exposure encoded anew, but data.cache is {data.cache}."
            yield Problem("error", where, text, "Set data.cache to none, or switch this off.")


def masks(case: Case) -> Iterator[Problem]:
    """Masks that are not used, masked loss without masks, and masks on what is to be preserved."""
    masked = [
        (where, source)
        for index, (where, source) in enumerate(case.numbered_sources())
        if source.alpha_masks or any(item.mask is not None and item.source == index for item in case.scan.items)
    ]
    if case.config.loss.masked and not masked:
        text = "is on, but no source has masks, so it changes nothing."
        yield Problem("warning", "loss.masked", text, "Give a source masks, or switch it off.")
    for where, source in masked:
        setting = f"{where}.alpha_masks" if source.alpha_masks else f"{where}.masks"
        if not case.config.loss.masked:
            text = "are found, but not used: masked loss is off."
            yield Problem("warning", setting, f"masks {text}", "Switch loss.masked on, or leave this empty.")
        elif source.prior_preservation and case.config.loss.mask_minimum == 0:
            text = "masks limit what is preserved: outside of them the adapter may change anything."
            yield Problem("warning", setting, text, "Remove the masks of this source, or raise loss.mask_minimum.")
