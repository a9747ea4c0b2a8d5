"""Which pictures a filter lets through, and how many every further choice would leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.ui.gallery_index import CAPTIONS, FLAGS, STATES, Picture

_CHOICES = ("folder", "bucket", "caption")


@dataclass(frozen=True)
class Filter:
    """What a picture must be, all of it together; "" and None leave a thing open.

    state: of STATES; flags: of FLAGS; caption: of CAPTIONS; text: in its name or caption, words in any order.
    least, most: bounds of its shorter side in pixels. query, within: of the Captions step, see `captions_query`; they
    count before everything else.
    """

    state: str = "used"
    flags: tuple[str, ...] = ()
    folder: str = ""
    bucket: str = ""
    caption: str = ""
    text: str = ""
    least: int | None = None
    most: int | None = None
    query: str = ""
    within: tuple[str, ...] = ()


def from_mapping(values: Mapping[str, Any]) -> Filter:
    """Return the filter that a page asks for. Raises ConfigError for what is none."""
    known = {field.name for field in fields(Filter)}
    if not set(values) <= known:
        raise ConfigError(
            f"filter: {', '.join(sorted(set(values) - known))} is unknown. Use {', '.join(sorted(known))}."
        )
    lists = {name: tuple(values.get(name, ())) for name in ("flags", "within")}
    wanted = Filter(**{**values, **lists})
    texts = (wanted.folder, wanted.bucket, wanted.caption, wanted.text, wanted.query, *wanted.flags, *wanted.within)
    bounds = (wanted.least, wanted.most)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | None) for n in bounds):
        raise ConfigError("filter: texts and whole numbers are wanted. Clear the filters.")
    if wanted.state not in STATES or not set(wanted.flags) <= FLAGS.keys() or wanted.caption not in ("", *CAPTIONS):
        raise ConfigError(f"filter: {values} names what is not known. Clear the filters.")
    return wanted


@dataclass(frozen=True)
class Filtered:
    """pictures: those let through, in order.

    counts: for each kind of choice, how many pictures each of its values leaves while all other choices stay; of a state
    all pictures, since nothing that is chosen for one state means anything in another.
    """

    pictures: tuple[Picture, ...]
    counts: Mapping[str, Mapping[str, int]]


def filtered(pictures: Iterable[Picture], wanted: Filter) -> Filtered:
    """Return what a filter lets through, with the counts of every choice."""
    words = wanted.text.casefold().split()
    through: list[Picture] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("state", "flags", *_CHOICES)}
    for picture in pictures:
        counts["state"][picture.state] += 1
        against = list(_against(picture, wanted, words))
        if not against:
            through.append(picture)
            counts["flags"].update(picture.flags)
        if len(against) < 2:
            for name in against or _CHOICES:
                if name in _CHOICES:
                    counts[name][getattr(picture, name)] += 1
    for counter in counts.values():
        counter.pop("", None)
    return Filtered(tuple(through), counts)


def _against(picture: Picture, wanted: Filter, words: Sequence[str]) -> Iterator[str]:
    """Yield every choice that does not let a picture through."""
    if picture.state != wanted.state:
        yield "state"
    if wanted.folder and picture.folder != wanted.folder:
        yield "folder"
    if wanted.bucket and picture.bucket != wanted.bucket:
        yield "bucket"
    if wanted.caption and picture.caption != wanted.caption:
        yield "caption"
    if not picture.flags.issuperset(wanted.flags):
        yield "a flag"
    shorter = min(picture.width, picture.height)
    if shorter < (wanted.least or 0) or (wanted.most is not None and shorter > wanted.most):
        yield "size"
    if words:
        texts = f"{picture.path.name}\n{picture.text}".casefold()
        if not all(word in texts for word in words):
            yield "text"
