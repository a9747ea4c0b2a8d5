"""The page: a grid to look at in a browser, with zoom and comparison; it needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lib_lora_trainer.evaluate.grid_cells import Grid, Position


@dataclass(frozen=True)
class Picture:
    """An image on the page. source: a file's name, relative to the page, or a data URI; width, height: in pixels."""

    source: str
    infotext: str
    prompt: str
    width: int
    height: int


def content(grid: Grid, pictures: Sequence[Picture], shown: Mapping[Position, int]) -> dict[str, Any]:
    """Return what a page shows, in JSON's types: sides, pictures, and cells as column, row, page, seed, picture."""
    return {
        "sides": [{"title": side.title, "labels": list(side.labels)} for side in grid.sides],
        "pictures": [asdict(picture) for picture in pictures],
        "cells": [[*position, shown[position]] for position in sorted(shown)],
    }


def write(title: str, grid: Grid, pictures: Sequence[Picture], shown: Mapping[Position, int]) -> str:
    """Return the page. shown: which of the pictures stands in a cell; cells that are not there are empty."""
    # A prompt can contain anything, also what would end the script.
    data = (
        json.dumps(content(grid, pictures, shown), ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
    )
    return (
        _PAGE.replace("@TITLE@", html.escape(title))
        .replace("@STYLE@", _STYLE)
        .replace("@SCRIPT@", _SCRIPT)
        .replace("@DATA@", data)
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>@TITLE@</title>
<style>@STYLE@</style>
<header><h1>@TITLE@</h1><span id="choices"></span>
<label>Size <input id="size" type="range" min="48" max="768" value="192"></label>
<span class="hint">Click: look. Shift and click: compare with it. Arrows move, space flips, Escape closes.</span></header>
<main><table id="grid"></table></main>
<dialog id="viewer"><div id="bar">
<span id="names"></span>
<button id="pick">Compare with…</button><button id="flip">Flip</button><button id="mode">Slider</button>
<button id="whole">Fit</button>
<button id="prompt">Copy prompt</button><button id="infotext">Copy infotext</button><button id="close">Close</button>
</div><div id="stage"><img id="one" alt=""><img id="other" alt=""><input id="cut" type="range" min="0" max="100"
 value="50" aria-label="Where the second image begins"></div><pre id="facts"></pre></dialog>
<script type="application/json" id="data">@DATA@</script>
<script>@SCRIPT@</script>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; --edge: #8886; }
body { margin: 0; }
header { position: sticky; top: 0; left: 0; z-index: 3; background: Canvas; padding: 8px 12px; display: flex;
  gap: 16px; align-items: center; flex-wrap: wrap; border-bottom: 1px solid var(--edge); }
h1 { font-size: 1.1em; margin: 0; }
.hint { opacity: .7; font-size: .85em; }
main { overflow: auto; padding: 8px; }
th { font-weight: 500; padding: 4px; background: Canvas; overflow-wrap: anywhere; }
tbody th { position: sticky; left: 0; text-align: right; max-width: 12em; }
td { padding: 2px; vertical-align: top; }
td button { padding: 0; border: 2px solid transparent; background: none; cursor: pointer; display: block; }
td button:focus-visible, td button.first { border-color: #3b82f6; }
td button.second { border-color: #f59e0b; }
td img { display: block; width: var(--size); height: auto; }
.empty { width: var(--size); height: var(--size); background: var(--edge); }
dialog { width: 100vw; height: 100vh; max-width: none; max-height: none; border: 0; padding: 0; overflow: hidden; }
dialog[open] { display: flex; flex-direction: column; }
#bar { display: flex; gap: 8px; padding: 8px; align-items: center; flex-wrap: wrap; }
#names { flex: 1; min-width: 12em; }
#stage { position: relative; flex: 1; min-height: 0; overflow: hidden; touch-action: none; }
#stage img { position: absolute; left: 0; top: 0; transform-origin: 0 0; image-rendering: pixelated; cursor: grab; }
#cut { position: absolute; left: 5%; width: 90%; bottom: 8px; }
#facts { margin: 0; padding: 8px; max-height: 22vh; overflow: auto; white-space: pre-wrap; font-size: .85em; }
[hidden] { display: none !important; }
"""

_SCRIPT = """
'use strict';
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId('data').textContent);
const cells = new Map(data.cells.map(([c, r, p, s, picture]) => [[c, r, p, s].join(), picture]));
const [columns, rows, pages, seeds] = data.sides;
let page = 0, seed = 0, first = null, second = null, slider = false, picking = false;
let scale = 1, left = 0, top_ = 0;
const key = (place) => [place[0], place[1], place[2], place[3]].join();
const picture = (place) => place && data.pictures[cells.get(key(place))];
const label = (place) => data.sides.map((side, at) => side.labels[place[at]]).filter(Boolean).join(', ') || 'image';

function choice(side, change) {
  if (side.labels.length < 2) return;
  const select = document.createElement('select');
  select.setAttribute('aria-label', side.title);
  side.labels.forEach((text, at) => select.add(new Option(text, at)));
  select.onchange = () => { change(Number(select.value)); drawGrid(); };
  byId('choices').append(select);
}

function drawGrid() {
  const table = byId('grid');
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  head.append(document.createElement('th'));
  for (const text of columns.labels) {
    const cell = document.createElement('th');
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  rows.labels.forEach((text, r) => {
    const row = body.insertRow();
    const name = document.createElement('th');
    name.textContent = text;
    row.append(name);
    columns.labels.forEach((_, c) => row.insertCell().append(drawCell([c, r, page, seed])));
  });
}

function drawCell(place) {
  const shown = picture(place);
  if (!shown) {
    const empty = document.createElement('div');
    empty.className = 'empty';
    return empty;
  }
  const button = document.createElement('button'), image = new Image();
  image.src = shown.source;
  image.alt = label(place);
  image.loading = 'lazy';
  image.width = shown.width;
  image.height = shown.height;
  button.dataset.place = key(place);
  button.append(image);
  button.onclick = (event) => { (event.shiftKey || picking) && first ? compare(place) : look(place); };
  return button;
}

function look(place) { first = place; second = null; scale = 0; show(); }
function compare(place) { second = place; slider = true; picking = false; scale = 0; show(); }

function show() {
  const shown = picture(first), beside = picture(second);
  if (!shown) return;
  for (const button of document.querySelectorAll('[data-place]')) {
    button.classList.toggle('first', button.dataset.place === key(first));
    button.classList.toggle('second', Boolean(second) && button.dataset.place === key(second));
  }
  if (!byId('viewer').open) byId('viewer').showModal();
  byId('one').src = shown.source;
  byId('other').hidden = byId('cut').hidden = !(beside && slider);
  if (beside) byId('other').src = beside.source;
  byId('flip').hidden = byId('mode').hidden = !beside;
  byId('names').textContent = label(first) + (second ? ' / ' + label(second) : '');
  byId('facts').textContent = shown.infotext;
  if (!scale) fit(); else place();
}

function fit() {
  const stage = byId('stage').getBoundingClientRect(), shown = picture(first);
  scale = Math.min(stage.width / shown.width, stage.height / shown.height);
  left = (stage.width - shown.width * scale) / 2;
  top_ = (stage.height - shown.height * scale) / 2;
  place();
}

function place() {
  const shown = picture(first), beside = picture(second);
  byId('one').style.transform = `translate(${left}px, ${top_}px) scale(${scale})`;
  if (!beside) return;
  // Of another size, it is shown as large as the first one.
  const across = scale * shown.width / beside.width, down = scale * shown.height / beside.height;
  byId('other').style.transform = `translate(${left}px, ${top_}px) scale(${across}, ${down})`;
  byId('other').style.clipPath = `inset(0 0 0 ${byId('cut').value}%)`;
}

function flip() { if (second) { [first, second] = [second, first]; show(); } }

function move(across, down) {
  const next = [first[0] + across, first[1] + down, first[2], first[3]];
  if (picture(next)) { first = next; show(); }
}

async function copy(text) {
  try { await navigator.clipboard.writeText(text); } catch (error) {
    // Pages opened from a folder may not reach the clipboard in the modern way.
    const field = document.createElement('textarea');
    field.value = text;
    byId('viewer').append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
}

choice(pages, (value) => { page = value; });
choice(seeds, (value) => { seed = value; });
const resize = () => document.documentElement.style.setProperty('--size', byId('size').value + 'px');
byId('size').oninput = resize;
// Where there is no shift key: the next image that is clicked is the other one.
byId('pick').onclick = () => { picking = true; byId('viewer').close(); };
byId('flip').onclick = flip;
byId('mode').onclick = () => { slider = !slider; show(); };
byId('whole').onclick = fit;
byId('cut').oninput = place;
byId('close').onclick = () => byId('viewer').close();
byId('prompt').onclick = () => copy(picture(first).prompt);
byId('infotext').onclick = () => copy(picture(first).infotext);
byId('stage').onwheel = (event) => {
  event.preventDefault();
  const stage = byId('stage').getBoundingClientRect();
  const x = event.clientX - stage.left, y = event.clientY - stage.top;
  const factor = Math.min(32 / scale, Math.max(0.05 / scale, Math.exp(-event.deltaY / 400)));
  left = x - (x - left) * factor;
  top_ = y - (y - top_) * factor;
  scale *= factor;
  place();
};
byId('stage').onpointermove = (event) => {
  if (!event.buttons || event.target === byId('cut')) return;
  left += event.movementX;
  top_ += event.movementY;
  place();
};
for (const image of [byId('one'), byId('other')]) image.draggable = false;
document.onkeydown = (event) => {
  if (!byId('viewer').open || event.target === byId('cut')) return;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (moves[event.key]) { event.preventDefault(); move(...moves[event.key]); }
  if (event.key === ' ') { event.preventDefault(); flip(); }
};
resize();
drawGrid();
"""
