"""A grid in the page: its cells in rows and columns, each to be looked at, compared, and taken to txt2img."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path
from urllib.parse import quote

from lib_lora_trainer.app.grid_store import Kept
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.thumbnails import thumbnail
from lib_lora_trainer.evaluate.grid_page import Picture
from lib_lora_trainer.ui import evaluate_txt2img, findings
from lib_lora_trainer.ui.pictures import address

SIDE = 384  # pixels of the longer side of a cell's picture


@dataclass(frozen=True)
class _Source:
    """Where the page finds a picture: as large as a cell, and whole."""

    small: str
    whole: str


def drafted(lines: Sequence[str], missing: int) -> str:
    """Return what would be made."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    end = "Start makes them." if missing else "Everything is there already: start writes the sheets anew."
    return f'<div class="lora-trainer-notice" role="status"><ul>{items}</ul><p>{end}</p></div>'


def shown(kept: Kept | None, project: Path, *, txt2img: bool) -> str:
    """Return a grid; None: it was cut off before anything of it was written. txt2img: whether there is such a tab."""
    if kept is None:
        return findings.notice(["This grid was cut off before its end. Continue makes what is missing."])
    absent = kept.places - len(kept.cells)
    told = f"{absent} of {kept.places} cells are still empty. Continue makes what is missing."
    parts = [findings.notice([told]) if absent else "", _files(kept)]
    sources = _sources(kept, project)
    pages, seeds = kept.sides[2].labels, kept.sides[3].labels
    leaves = product(range(len(pages)), range(len(seeds)))
    parts += [_leaf(kept, at, sources, txt2img) for at in leaves]
    sheets = "".join(_sheet(path) for path in kept.sheets)
    parts.append(f"<details><summary>Sheets with labels: {len(kept.sheets)}</summary>{sheets}</details>")
    style = f"--lora-trainer-columns:{len(kept.sides[0].labels)}"
    return f'<div class="lora-trainer-grid" data-grid style="{style}">{"".join(parts)}</div>'


def _files(kept: Kept) -> str:
    """Return the size of the cells, and the link to the page; gradio serves none below a folder with a dot."""
    link = ""
    if kept.page.is_file() and not _hidden(kept.page):
        link = f'<a href="{file_address(kept.page)}" target="_blank" rel="noopener">Open as a page of its own</a>'
    return (
        '<div class="lora-trainer-grid-bar"><label>Size of the images <input type="range" min="64" max="384" '
        f'value="160" data-grid-size></label><span>Click an image to look closer. Shift and click: compare.</span>{link}</div>'
    )


def file_address(path: Path) -> str:
    """Return where the page finds a file of a project that lies in no folder with a dot."""
    return "file=" + quote(path.resolve().as_posix())


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.resolve().parts)


def _sources(kept: Kept, project: Path) -> dict[int, _Source]:
    """Return where the pictures are, without those that somebody took away."""
    found = {}
    for number, picture in enumerate(kept.pictures):
        path = kept.folder / picture.source
        try:
            small = thumbnail(path, project / "cache" / "thumbnails", SIDE)
            found[number] = _Source(address(small, project), address(path, project))
        except (DataError, OSError):
            continue
    return found


def _leaf(kept: Kept, at: tuple[int, int], sources: dict[int, _Source], txt2img: bool) -> str:
    columns, rows, pages, seeds = kept.sides
    title = ", ".join(text for text in (pages.labels[at[0]], seeds.labels[at[1]]) if text)
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in columns.labels)
    body = ""
    for row, label in enumerate(rows.labels):
        cells = "".join(_cell(kept, (column, row, *at), sources, txt2img) for column in range(len(columns.labels)))
        body += f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'
    corner = escape(" / ".join(text for text in (rows.title, columns.title) if text))
    return (
        f'<section>{f"<h4>{escape(title)}</h4>" if title else ""}<div class="lora-trainer-grid-table"><table>'
        f"<thead><tr><th>{corner}</th>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _cell(kept: Kept, place: tuple[int, int, int, int], sources: dict[int, _Source], txt2img: bool) -> str:
    number = kept.cells.get(place)
    source = sources.get(number) if number is not None else None
    if number is None or source is None:
        text = "not made" if number is None else "moved away"
        return f'<td><div class="lora-trainer-grid-empty">{text}</div></td>'
    picture: Picture = kept.pictures[number]
    label = ", ".join(side.labels[at] for side, at in zip(kept.sides, place, strict=True) if side.labels[at]) or "image"
    infotext = escape(picture.infotext, quote=True)
    send = evaluate_txt2img.button_html(picture.infotext) if txt2img else ""
    return (
        f'<td><button type="button" class="lora-trainer-grid-cell" data-grid-cell="{",".join(map(str, place))}" '
        f'data-whole="{source.whole}" data-width="{picture.width}" data-height="{picture.height}" '
        f'data-infotext="{infotext}" title="{escape(label)}"><img src="{source.small}" alt="{escape(label)}" '
        f'width="{picture.width}" height="{picture.height}" loading="lazy"></button>{send}</td>'
    )


def _sheet(path: Path) -> str:
    name = escape(path.name)
    if _hidden(path):
        return f"<p>{escape(str(path))}</p>"
    source = file_address(path)
    return (
        f'<p><a href="{source}" target="_blank" rel="noopener">{name}</a></p>'
        f'<img src="{source}" alt="{name}" loading="lazy">'
    )
