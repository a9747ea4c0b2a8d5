"""The made images as the page shows them for review: what the folder holds, a page at a time, and what can be undone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from lib_lora_trainer.app import dataset_tools, reg_folder
from lib_lora_trainer.base.errors import DataError, TrainerError
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.journal import FOLDER as JOURNAL
from lib_lora_trainer.dataset.journal import history
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.dataset.tools.entries import Entry
from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.tools_panel import error_html, history_html

PAGE, SIDE = 48, 384


@dataclass(frozen=True)
class Leaf:
    """One page of the gallery. number: the page's, from 0; count: of all images."""

    html: str
    number: int
    pages: int
    count: int


@dataclass(frozen=True)
class Changes:
    """What can be taken back and done again in the folder, and all that was done as HTML."""

    undo: Entry | None
    redo: Entry | None
    html: str


def nothing() -> str:
    """Return what is shown before anything was made."""
    return findings.empty(
        "No images yet",
        "“Generate” makes them. Here you look through them and re-roll those that went wrong: bad hands are trained, too.",
    )


def name_of(path: Path, folder: Path) -> str:
    """Return an image's name as the settings' jobs know it: its path below the folder without its ending."""
    return path.relative_to(folder).as_posix()[: -len(".png")]


def leaf(folder: Path, number: int, project: Path, endings: Iterable[str]) -> Leaf:
    """Return a page of the images in a folder, the nearest one there is.

    project: keeps thumbnails; endings: of caption files, as in the run's settings.
    """
    found = reg_folder.listed(folder)
    pages = max(1, -(-len(found) // PAGE))
    number = min(max(number, 0), pages - 1)
    shown = found[number * PAGE : (number + 1) * PAGE]
    if not shown:
        return Leaf(nothing(), 0, 1, 0)
    extension = reg_folder.caption_extension(tuple(endings))
    small = thumbnails(shown, project / "cache" / "thumbnails", SIDE)
    cards = "".join(_card(path, image, (folder, project), extension) for path, image in zip(shown, small, strict=True))
    return Leaf(_field(cards, project.name), number, pages, len(found))


def _field(cards: str, project: str) -> str:
    return (
        '<div class="lora-trainer-counts" id="lora_trainer_reg_counts"><span role="status"><span>Selected</span> '
        '<b data-reg="count">0</b></span><button type="button" data-reg-do="page">Select this page</button>'
        '<button type="button" data-reg-do="none">Select none</button></div>'
        f'<div class="lora-trainer-reg-field" data-reg-project="{escape(project)}" role="listbox" tabindex="0" '
        f'aria-multiselectable="true" aria-label="Regularization images">{cards}</div>'
        "<p><small>Arrows move, Space selects, Enter enlarges, Delete removes. Ctrl+Z takes back.</small></p>"
    )


def _card(path: Path, small: Path | DataError, places: tuple[Path, Path], extension: str) -> str:
    folder, project = places
    name = name_of(path, folder)
    facts = reg_folder.read_facts(path)
    written = folder / f"{name}{extension}"
    caption = written.read_text(encoding="utf-8", errors="replace").strip() if written.is_file() else ""
    if isinstance(small, DataError):
        picture, version = f'<div class="lora-trainer-broken">{escape(printable(str(small)))}</div>', "broken"
    else:
        picture = f'<img src="{address(small, project)}" data-reg-whole="{_whole(path, small, project)}" alt="" loading="lazy">'
        version = small.stem
    return (
        f'<figure role="option" aria-selected="false" data-reg-name="{escape(name)}" data-reg-version="{version}">'
        f'<div class="lora-trainer-frame">{picture}</div><figcaption><b>{escape(printable(name))}</b>'
        f"<small>{escape(_told(path, facts))}</small><p>{escape(printable(caption)) or '<em>no caption</em>'}</p>"
        "</figcaption></figure>"
    )


def _whole(path: Path, small: Path, project: Path) -> str:
    """Return where the page finds an image in full, its thumbnail where that would travel inside the page."""
    hidden = any(part.startswith(".") for part in path.resolve().parts)
    return address(small if hidden else path, project)


def _told(path: Path, facts: dict[str, Any] | None) -> str:
    if facts is None:
        return f"{_size(path)} · not made here"
    rolled = f" · re-rolled {facts['roll']}×" if facts.get("roll") else ""
    return f"{facts.get('width')}×{facts.get('height')} · seed {facts.get('seed')}{rolled}"


def _size(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return f"{image.width}×{image.height}"
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return "cannot be read"


def changes(folder: Path) -> Changes:
    """Return what the folder's journal could take back; a journal that cannot be read is told."""
    try:
        return Changes(
            dataset_tools.next_to("undo", folder), dataset_tools.next_to("redo", folder), history_html(history(folder))
        )
    except TrainerError as error:
        return Changes(None, None, error_html(error))


def mark(folder: Path) -> str:
    """Return what differs when the folder's journal has another entry, or another state of one."""
    journal = folder / JOURNAL / "journal"
    states = sorted((each.name, each.stat().st_mtime_ns) for each in journal.iterdir()) if journal.is_dir() else []
    return hashlib.sha256(repr(states).encode()).hexdigest()[:12]
