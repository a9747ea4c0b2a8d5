"""The captions of regularization images as the page lists them: each beside its picture, with what stands of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lib_lora_trainer.app.reg_draft import Draft
from lib_lora_trainer.app.reg_folder import Standing
from lib_lora_trainer.app.reg_images import RegImage
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.plan.describe import duration
from lib_lora_trainer.ui import captions_show, findings, reg_options
from lib_lora_trainer.ui.pictures import address

PAGE, SIDE = 20, 256
ALL = "All"
SHOWN = {"todo": "To make", "made": "Made", "own": "Your own", "none": "No image"}
_FEW, _TAGS = 4, 60  # problems that are shown unfolded; tags that can be clicked
_STATES = {"made": "made", "missing": "to make", "changed": "to make anew", "own": "your own picture"}
_PLAIN = re.compile(r"[*?]|\\(?![()\[\]])")


@dataclass(frozen=True)
class Row:
    """One image in the list. standing: None where no image is made."""

    image: RegImage
    standing: Standing | None

    @property
    def kind(self) -> str:
        """A key of SHOWN."""
        if self.standing is None:
            return "none"
        return self.standing.state if self.standing.state in ("made", "own") else "todo"


def nothing() -> str:
    """Return what is shown before anything was listed."""
    return findings.empty(
        "Nothing listed yet",
        "“List captions” shows every picture with the text its image would be made from. Nothing is made by that.",
    )


def rows(draft: Draft, which: str = ALL) -> tuple[Row, ...]:
    """Return the images of one kind, or all, in the order of their pictures."""
    places = {item.path: place for place, item in enumerate(draft.found.items)} if draft.found else {}
    every = [Row(each.image, each) for each in draft.standing] + [Row(image, None) for image in draft.left_out]
    every.sort(key=lambda row: (places.get(row.image.picture, 0), row.image.index))
    return tuple(row for row in every if which in (ALL, row.kind))


def choices(draft: Draft) -> list[tuple[str, str]]:
    """Return which kinds of images there are: (shown, value)."""
    kinds = {row.kind for row in rows(draft)}
    return [(ALL, ALL), *((label, kind) for kind, label in SHOWN.items() if kind in kinds)]


def head(draft: Draft, options: RegularizationConfig, seconds: float | None) -> str:
    """Return how many images there are and would be made, what that takes, and what has to be known.

    seconds: that making the rest takes, None where it is not known.
    """
    states = Counter(row.kind for row in rows(draft))
    todo = len(draft.todo)
    pairs = [(str(len(draft.standing)), "images in all"), (str(todo), "to make")]
    pairs += [(str(states[kind]), label) for kind, label in (("made", "made"), ("own", "your own")) if states[kind]]
    pairs += [(str(len(draft.left_out)), "pictures without image")] if draft.left_out else []
    if todo:
        pairs += [(duration(seconds), "to make them")] if seconds is not None else []
        pairs += [(f"{draft.bytes / 1e6:.1f} MB", "on the disk")]
    text = findings.figures(pairs) + _problems(draft) + _sizes(draft) + _folders(draft)
    return text + (_tags(draft, options) if options.prompts == "captions" else "")


def _problems(draft: Draft) -> str:
    text = reg_options.listed(draft.problems)
    if len(draft.problems) <= _FEW or draft.errors:
        return text
    return f"<details><summary>{len(draft.problems)} messages</summary>{text}</details>"


def _sizes(draft: Draft) -> str:
    sizes = Counter(each.image.size for each in draft.standing)
    if not sizes:
        return ""
    told = ", ".join(f"{width}×{height}: {count}" for (width, height), count in sorted(sizes.items()))
    anew = reg_options.differing(name for each in draft.to_make for name in each.changed)
    changed = f"<p><span>To be made anew, because it differs:</span> <b>{escape(anew)}</b></p>" if anew else ""
    return f"{changed}<p><small><span>Sizes</span> {told}</small></p>"


def _folders(draft: Draft) -> str:
    counts = Counter(each.image.name.rpartition("/")[0] for each in draft.standing)
    if not counts:
        return ""
    lines = [
        [printable(name), str(count), f"{draft.numbers.get(name, 1):g}×"] for name, count in sorted(counts.items())
    ]
    table = findings.table(("Folder", "Images", "Shown per epoch"), lines)
    return f"<details><summary>Repeats by folder</summary>{table}</details>"


def _tags(draft: Draft, options: RegularizationConfig) -> str:
    """Return the tags that stay in the captions, which the page's script leaves out and takes in again by a click."""
    counts = Counter(
        tag for row in rows(draft) if row.image.index == 0 for tag in dict.fromkeys(split(row.image.caption))
    )
    common = [(tag, count) for tag, count in counts.most_common() if not (tag.startswith("/") and tag.endswith("/"))]
    away = [(mark, 0) for mark in options.remove if mark not in {as_mark(tag) for tag, _ in common}]
    chips = "".join(
        f'<button type="button" data-reg-mark="{escape(as_mark(tag) if count else tag)}" '
        f'aria-pressed="{"false" if count else "true"}"><span>{escape(tag)}</span>{f" <b>{count}</b>" if count else ""}'
        "</button>"
        for tag, count in (*away, *common[:_TAGS])
    )
    rest = f"<p><small>… and {len(common) - _TAGS} more</small></p>" if len(common) > _TAGS else ""
    if not chips:
        return ""
    return (
        "<details open><summary>Tags in these captions: click what is to be left out</summary>"
        f'<div class="lora-trainer-chips lora-trainer-reg-tags">{chips}</div>{rest}</details>'
    )


def as_mark(tag: str) -> str:
    r"""Return what leaves out exactly a tag: with a backslash before *, ? and a backslash of its own."""
    return _PLAIN.sub(r"\\\g<0>", tag)


def page(
    shown: Sequence[Row], project: Path, options: RegularizationConfig, numbers: Mapping[str, float]
) -> Iterator[Phase | str]:
    """Make one page of a list: yields how far it is, and last its HTML.

    project: the folder that keeps thumbnails; numbers: how often an epoch shows each image, by folder.
    """
    yield Phase("making previews", 0, len(shown))
    cache = project / "cache" / "thumbnails"
    made = [row.standing.path for row in shown if row.standing and row.standing.path.is_file()]
    own = dict(zip(made, thumbnails(made, cache, SIDE), strict=True))
    cards = ""
    for done, (row, small) in enumerate(
        zip(shown, thumbnails([row.image.picture for row in shown], cache, SIDE), strict=True), start=1
    ):
        first = _picture(small, project, "picture")
        second = _picture(own[row.standing.path], project, "image") if row.standing and row.standing.path in own else ""
        times = numbers.get(row.image.name.rpartition("/")[0], 1.0)
        cards += _card(row, first + second, options, times)
        yield Phase("making previews", done, len(shown))
    yield f'<ul class="lora-trainer-diffs lora-trainer-reg-rows">{cards}</ul>' if cards else ""


def _picture(small: Path | DataError, project: Path, what: str) -> str:
    if isinstance(small, DataError):
        return '<span class="lora-trainer-broken">cannot be read</span>'
    return f'<img src="{address(small, project)}" alt="{what}" loading="lazy">'


def _card(row: Row, pictures: str, options: RegularizationConfig, times: float) -> str:
    image, standing = row.image, row.standing
    kind = _STATES[standing.state] if standing else "nothing is left: no image"
    if standing and standing.roll:
        kind += f", re-rolled {standing.roll}×"
    size = f"{image.size[0]}×{image.size[1]}"
    about = f"<small>{size} · <span>shown per epoch</span> {times:g}×</small>" if standing else ""
    why = (
        f"<p><small>{escape(reg_options.differing(standing.changed))}</small></p>"
        if standing and standing.changed
        else ""
    )
    text = (
        captions_show.marked(image.trained, image.caption)
        if options.prompts == "captions"
        else f"<span>{escape(image.caption)}</span>"
    )
    return (
        f'<li data-kind="{row.kind}"><span class="lora-trainer-reg-pair">{pictures}</span>'
        f'<div><b>{escape(printable(image.name))}</b> {about} <span class="lora-trainer-badge">{kind}</span>'
        f'<p class="lora-trainer-diff">{text}</p>{why}</div></li>'
    )
