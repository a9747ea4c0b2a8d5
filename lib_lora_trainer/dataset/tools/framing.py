"""One large picture of a person becomes several: full body, cowboy shot, upper body, portrait, close-up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.caption_files import read_caption
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.tools.companions import mask_path, new_path
from lib_lora_trainer.dataset.tools.disk import copied
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, shown, write
from lib_lora_trainer.dataset.tools.options import FRAMINGS, Box, CropOptions
from lib_lora_trainer.dataset.tools.pictures import Rewritten, Shape, still_shape
from lib_lora_trainer.dataset.tools.rewriting import masked_alike
from lib_lora_trainer.dataset.tools.subject import Subject, find
from lib_lora_trainer.dataset.tools.trim import cropping

SAME = {"close_up": "close-up", "face_focus": "close-up", "head_shot": "close-up", "headshot": "close-up"}
OTHERS = frozenset({"wide_shot", "very_wide_shot", "lower_body"})  # say nothing true of a crop
MARGIN = 0.06  # of the crop's height, around the subject
NARROWEST, WIDEST = 0.6, 1.5  # width / height of a crop, which a bucket takes without waste
WHOLE = 0.9  # of the picture's area: a crop larger than that would be the picture again


def plan(dataset: Dataset, options: CropOptions) -> Iterator[Proposal]:
    """Yield for each picture the crops that it is large enough for, as pictures beside it; it stays as it is.

    The picture's own framing tag says how much of the body it shows, and only closer framings are made. Each crop has
    the captions with the framing tag exchanged, or added at the end, and its part of the mask. Crops that a person drew
    (`CropOptions.windows`) are made as they are.
    """
    names = Names()
    for member in dataset.members:
        yield _proposal(dataset, member, options, names)


def framing_of(caption: str) -> str:
    """Return the framing that a caption's tags name, "" if none."""
    found = (SAME.get(tag, tag) for tag in map(_plain, caption.split(",")))
    return next((tag for tag in found if tag in FRAMINGS), "")


def framed(caption: str, framing: str) -> str:
    """Return a caption, or each line of it, with its framing tags exchanged for another one.

    The new tag stands where the first of the old ones stood, else at the end, and is spelled as the caption spells its
    tags: with spaces when one of them has a space and none an underscore.
    """
    return "\n".join(_framed_line(line, framing) for line in caption.splitlines() or [""])


def _framed_line(line: str, framing: str) -> str:
    spaced = "_" not in line and any(" " in tag.strip() for tag in line.split(","))
    new = framing.replace("_", " ") if spaced else framing
    parts, placed = [], False
    for part in line.split(",") if line.strip() else []:
        if SAME.get(_plain(part), _plain(part)) not in FRAMINGS.keys() | OTHERS:
            parts.append(part)
        elif not placed:
            parts.append(re.sub(r"\S.*\S|\S", lambda _: new, part, count=1))
            placed = True
    text = ",".join(parts).strip(" ,")
    if placed:
        return text
    return f"{text}, {new}" if text else new


def _plain(tag: str) -> str:
    return re.sub(r"[\s_]+", "_", tag.strip().lower())


def window(subject: Subject, size: tuple[int, int], framing: str, shows: str) -> Box:
    """Return the box of a crop in pixels; size: of the picture; shows: the framing that the whole picture has.

    From above the head down to the framing's share of the visible body, as wide as the subject is there, with a margin,
    and never much narrower or wider than tall.
    """
    _, top, _, bottom = subject.box
    end = top + (bottom - top) * FRAMINGS[framing] / FRAMINGS[shows]
    margin = (end - top) * MARGIN
    upper = max(0, round(top - margin))
    lower = min(size[1], round(end + margin if framing == shows else end))
    left, right = subject.columns(top, lower, size)
    height = lower - upper
    width = min(max(right - left + 2 * margin, NARROWEST * height), WIDEST * height, size[0])
    start = round(min(max(0.0, (left + right - width) / 2), size[0] - width))
    return start, upper, min(size[0], start + round(width)), lower


def _proposal(dataset: Dataset, member: Member, options: CropOptions, names: Names) -> Proposal:
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, problems=(shape,))
    before = shape.facts()
    if member.path in options.windows:
        return _given(dataset, member, shape, options.windows[member.path], names)
    if shape.width * shape.height <= options.resolution**2:  # every crop is smaller still
        return Proposal(member.path, before=before)
    shows = framing_of(_caption(member)) or ("full_body" if options.assume_full_body else "")
    if not shows:
        text = f"has no framing tag ({', '.join(FRAMINGS)}), so what it shows of the body is not known."
        fix = "Add the tag to its caption, or take such pictures as full body."
        return Proposal(member.path, before=before, problems=(Problem("note", printable(member.path), text, fix),))
    subject = find(member, shape, options.boxes.get(member.path), options.by_contrast)
    if isinstance(subject, Problem):
        return Proposal(member.path, before=before, problems=(subject,))
    return _crops(dataset, member, shape, subject, (shows, options), names)


def _given(dataset: Dataset, member: Member, shape: Shape, windows: Mapping[str, Box], names: Names) -> Proposal:
    """Propose the crops that a person drew, in the framings' order."""
    before = {**shape.facts(), "found_by": "drawn"}
    for framing, box in windows.items():
        left, top, right, bottom = box
        inside = 0 <= left < right <= shape.width and 0 <= top < bottom <= shape.height
        if framing not in FRAMINGS or not inside:
            text = (
                f"cannot be cropped to {framing} = {left},{top},{right},{bottom}: it is {shape.width}×{shape.height}."
            )
            fix = f"Give left, top, right and bottom within the picture, for one of: {', '.join(FRAMINGS)}."
            return Proposal(member.path, before=before, problems=(Problem("error", printable(member.path), text, fix),))
    wanted = [(framing, windows[framing]) for framing in FRAMINGS if framing in windows]
    return _made(dataset, member, shape, (wanted, before), names)


def _crops(
    dataset: Dataset, member: Member, shape: Shape, subject: Subject, wish: tuple[str, CropOptions], names: Names
) -> Proposal:
    shows, options = wish
    wanted = []
    for framing, reach in FRAMINGS.items():
        box = window(subject, shape.size, framing, shows) if reach <= FRAMINGS[shows] else (0, 0, 0, 0)
        area = (box[2] - box[0]) * (box[3] - box[1])
        enough = options.resolution**2 <= area < WHOLE * shape.width * shape.height
        if framing in options.framings and enough:
            wanted.append((framing, box))
    before = {**shape.facts(), "framing": shows, "subject": list(subject.box), "found_by": subject.found}
    return _made(dataset, member, shape, (wanted, before), names)


def _made(
    dataset: Dataset,
    member: Member,
    shape: Shape,
    wanted: tuple[Sequence[tuple[str, Box]], Mapping[str, Any]],
    names: Names,
) -> Proposal:
    """Propose crops; wanted: framings with their boxes, and the facts before."""
    operations: list[Operation] = []
    crops = []
    for framing, box in wanted[0]:
        target = new_path(dataset, member, f"-{framing}", names)
        operations += _crop(dataset, member, shape, box, (framing, target))
        crops.append({"framing": framing, "file": shown(target, dataset.root), "box": list(box)})
    return Proposal(member.path, tuple(operations), wanted[1], {"crops": crops} if crops else {})


def _crop(dataset: Dataset, member: Member, shape: Shape, box: Box, made: tuple[str, Path]) -> Iterator[Operation]:
    framing, target = made
    yield write(target, Rewritten(member.path, shape.size, cropping(box)))
    for file in member.captions or (None,):
        suffix = file.suffix if file else next(iter(dataset.extensions), ".txt")
        yield write(target.with_name(f"{target.stem}{suffix}"), partial(_write_caption, file, framing))
    if member.mask is not None:
        mask = mask_path(dataset, target, member.mask).with_suffix(".png")
        yield write(mask, Rewritten(member.mask, open_grey(member.mask).size, masked_alike(shape.size, cropping(box))))


def _caption(member: Member) -> str:
    for file in member.captions:
        try:
            return read_caption(file, ", ")[0]
        except DataError:
            continue  # the scan tells of it; what it would say is not known
    return ""


def _write_caption(file: Path | None, framing: str, path: Path) -> None:
    """Write the caption of a crop; one that cannot be read is copied as it is, for the scan to tell of it again."""
    try:
        text = read_caption(file, "\n")[0] if file is not None else ""
    except DataError:
        assert file is not None
        copied(file, path)
        return
    path.write_bytes(framed(text, framing).encode())
