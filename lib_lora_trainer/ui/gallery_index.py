"""What the gallery knows of each picture of a scan: where it stands, its size and bucket, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem, TrainerError
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.buckets import bucket_problems
from lib_lora_trainer.dataset.caption_files import read_caption
from lib_lora_trainer.dataset.copies import same_content
from lib_lora_trainer.dataset.entries import absolute
from lib_lora_trainer.dataset.faces import crops_faces, face_in
from lib_lora_trainer.dataset.formats import FORMATS, OTHER_PICTURES, Facts
from lib_lora_trainer.dataset.items import Item, Scan
from lib_lora_trainer.dataset.journal import Journal, history
from lib_lora_trainer.dataset.readings import read_all
from lib_lora_trainer.dataset.repeats import words_in_name
from lib_lora_trainer.dataset.tools.bucket_report import Placed, placed
from lib_lora_trainer.dataset.tools.members import EXCLUDED

STATES: Mapping[str, str] = {"used": "In use", "out": "Left out", "excluded": "Excluded", "removed": "Removed"}
CAPTIONS: Mapping[str, str] = {
    "text": "Has a caption", "none": "No caption file", "empty": "Empty caption file", "encoding": "Badly encoded",
}  # fmt: skip
_KINDS = FORMATS.keys() | OTHER_PICTURES
FLAGS: Mapping[str, str] = {
    "small": "Too small",
    "none": "Without caption",
    "empty": "Caption is empty",
    "encoding": "Caption badly encoded",
    "copy": "Same content as another",
    "cut": "More than a fifth cut off",
    "exif": "Damaged EXIF",
    "format": "Wrong extension",
    "cmyk": "CMYK",
    "deep": "16 bits",
    "transparent": "Transparent",
    "face": "No face in its name",
}
"""What can be the matter with a picture, and how it is called; a filter each."""
CUT = 0.2  # of a picture: from here on what its bucket cuts off is told


@dataclass(frozen=True)
class Picture:
    """One picture. path: its name in the dataset; file: where it lies, another place for removed ones.

    state: of STATES; caption: of CAPTIONS, "" where none is looked for; flags: of FLAGS; folder: as concepts are named.
    width, height: upright, 0 where unknown; bucket: `512×768`, "" for none; text: its caption; told: why it is left out,
    or what is wrong with its caption file.
    """

    path: Path
    file: Path
    state: str
    source: int
    folder: str
    width: int = 0
    height: int = 0
    bucket: str = ""
    caption: str = ""
    flags: frozenset[str] = frozenset()
    text: str = ""
    told: str = ""


def build(scan: Scan, data: DataConfig, triggers: Sequence[str]) -> Iterator[Picture]:
    """Yield what the gallery shows of a scan: pictures in use, left out, excluded, and removed into the holding.

    Looks at file headers that the scan has read already, and at files of equal length for copies.
    """
    yield from _used(scan, data, triggers)
    reasons = {problem.where: problem.message for problem in scan.problems}
    roots = [absolute(source.path) for source in data.sources]
    for path in scan.skipped:
        index = _owner(path, roots)
        told = reasons.get(str(path), "")
        yield Picture(path, path, "out", index, _label(path.parent, roots[index]), told=told)
    for index, source in enumerate(data.sources):
        if source.path.strip():
            yield from _excluded(roots[index], index)
            yield from _removed(roots[index], index)


def _used(scan: Scan, data: DataConfig, triggers: Sequence[str]) -> Iterator[Picture]:
    copies = {path for group in same_content([item.path for item in scan.items]) for path in group[1:]}
    facts = read_all([item.path for item in scan.items], "headers", None)
    places = _places(scan, data)
    reasons = {problem.where: problem.message for problem in scan.problems}
    for item in scan.items:
        place = places.get(item.path)
        caption = _caption(item, reasons, _fallback(item, data, triggers))
        flags = {caption} - {"text"}
        flags |= {"copy"} if item.path in copies else set()
        flags |= {"face"} if crops_faces(data) and face_in(item.path, item.width, item.height) is None else set()
        flags |= set(_of_place(place)) | set(_of_facts(item.path, facts[item.path]))
        bucket = place.placement.bucket if place else None
        yield Picture(
            item.path, item.path, "used", item.source, item.concept, item.width, item.height,
            f"{bucket.width}×{bucket.height}" if bucket else "", caption, frozenset(flags), item.caption,
            reasons.get(str(item.caption_file), "") if caption == "encoding" else "",
        )  # fmt: skip


def _places(scan: Scan, data: DataConfig) -> dict[Path, Placed]:
    """Return where each picture lands at its first resolution; nothing while the settings allow no buckets."""
    if bucket_problems(data):
        return {}
    found: dict[Path, Placed] = {}
    for view in placed(scan, data):
        found.setdefault(view.path, view)
    return found


def _of_place(place: Placed | None) -> Iterator[str]:
    if place is not None and place.lacking:
        yield "small"
    if place is not None and place.cut_off > CUT:
        yield "cut"


def _of_facts(path: Path, facts: Facts | Problem) -> Iterator[str]:
    if isinstance(facts, Problem):  # changed since the scan; the next one tells
        return
    told = {
        "exif": facts.exif_unreadable,
        "format": facts.format not in FORMATS[path.suffix.lower()],
        "cmyk": facts.cmyk,
        "deep": facts.deep,
        "transparent": bool(facts.transparent),
    }
    yield from (name for name, yes in told.items() if yes)


def _caption(item: Item, reasons: Mapping[str, str], fallback: str) -> str:
    if item.caption_file is None:
        return "none"
    if str(item.caption_file) in reasons:
        return "encoding"
    return "empty" if item.caption == fallback and _blank(item.caption_file) else "text"


def _fallback(item: Item, data: DataConfig, triggers: Sequence[str]) -> str:
    """Return the caption that an item has where its file holds no text, as the scan gives it."""
    own = data.sources[item.source].fallback_caption.strip()
    if own or not item.regularization:
        return own or ", ".join(triggers)
    return words_in_name(item.path.parent.name).strip()


def _blank(file: Path) -> bool:
    try:
        return not read_caption(file)[0]
    except DataError:
        return False


def _excluded(root: Path, index: int) -> Iterator[Picture]:
    hidden = root / EXCLUDED
    for path in _pictures(hidden.rglob("*")):
        yield Picture(path, path, "excluded", index, _label(root / path.parent.relative_to(hidden), root))


def _removed(root: Path, index: int) -> Iterator[Picture]:
    if not history(root):
        return
    try:
        with Journal(root) as journal:
            held = journal.held()
    except TrainerError:  # another tool is at work; what it leaves is found when it has ended
        return
    latest = {each.path: each.file for each in reversed(held)}
    for path in sorted(latest):
        if path.suffix.lower() in _KINDS and not path.exists():
            yield Picture(path, latest[path], "removed", index, _label(path.parent, root))


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in _KINDS and path.is_file())


def _owner(path: Path, roots: list[Path]) -> int:
    inside = [index for index, root in enumerate(roots) if path.is_relative_to(root)]
    return max(inside, key=lambda index: len(roots[index].parts), default=0)


def _label(folder: Path, root: Path) -> str:
    """Return a folder's name as concepts have it: from the source's own name on, with forward slashes."""
    if not folder.is_relative_to(root):
        return folder.name
    return "/".join((root.name or str(root), *folder.relative_to(root).parts))
