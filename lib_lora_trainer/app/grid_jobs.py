"""Grids as generators of events: say what would be made, make what is missing, write sheet and page.

An image is named by what it is made from, adapter's content included, so that a folder needs no other record: a stopped
or killed grid goes on where it was, and a grid with another axis takes over the images it shares with the one before.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base import files
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Planned, SampleMade
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.evaluate import grid_cells, grid_page, grid_sheet
from lib_lora_trainer.evaluate.grid import GridConfig
from lib_lora_trainer.evaluate.grid_axes import Scene, Worn
from lib_lora_trainer.evaluate.grid_cells import Grid, Position
from lib_lora_trainer.evaluate.grid_sheet import Labels
from lib_lora_trainer.evaluate.grid_studio import Studio
from lib_lora_trainer.hosts.api import MadeImage
from lib_lora_trainer.workshop import presets, vectors

CELLS = "cells"
"""The folder of a grid's images."""
PAGE = "grid.html"
RECORD = "grid.json"
"""What the page shows, for others to show: `grid_page.content` with the images' files."""
FACTS = "lora-trainer grid"
"""The PNG's text with what the image was made from, beside the WebUI's `parameters`."""
ESTIMATE = "About "
"""Begins the note with the time that the rest takes."""
_PHASE = "making the grid"
_TIMED = 3  # images after which the rest is estimated: the first one loads and compiles


@dataclass(frozen=True)
class Request:
    """What is asked for. folder: where images, sheets and page go.

    presets: files of block weights, of which the last one counts; read where the settings name none.
    """

    config: GridConfig
    folder: Path
    presets: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Draft:
    """What a grid would be. keys: the names of the images; missing: those to be made, in this order."""

    grid: Grid
    keys: Mapping[Scene, str]
    facts: Mapping[Scene, Mapping[str, Any]]
    missing: tuple[Scene, ...]
    folder: Path

    def path(self, scene: Scene) -> Path:
        """Return an image's file."""
        return self.folder / CELLS / f"{self.keys[scene]}.png"

    def lines(self) -> tuple[str, ...]:
        """Return it in words."""
        names = ("columns", "rows", "pages", "seeds")
        sides = [
            f"{len(side.labels)} {name}: {side.title}, {', '.join(side.labels)}"
            for name, side in zip(names, self.grid.sides, strict=True)
            if side.labels != ("",)
        ]
        count = f"{len(self.grid.scenes)} cells, {len(self.grid.todo)} different images, {len(self.missing)} to make."
        return (*sides, count)


def draft(studio: Studio, request: Request) -> Draft:
    """Return what a grid would be; nothing is made.

    Raises ProblemsFound with everything that cannot be met, ConfigError for block weights that cannot be read.
    """
    found = range_problems(request.config)
    if found:
        raise ProblemsFound(tuple(found))
    family = studio.family()
    own = request.config.presets
    known = presets.read_all([presets.named(Path(own))] if own else request.presets)
    made = grid_cells.build(request.config, lambda scene: settled(scene, family, known))
    problems = (*_missing_files(made.todo), *studio.problems(made.todo))
    if problems:
        raise ProblemsFound(tuple(dict.fromkeys(problems)))
    digests = {file: files.sha256(Path(file)) for file in _adapters(made.todo)}
    facts = {scene: grid_cells.facts(scene, studio.made_by(scene), digests) for scene in made.todo}
    keys = {scene: grid_cells.key(content) for scene, content in facts.items()}
    whole = Draft(made, keys, facts, (), request.folder)
    missing: dict[str, Scene] = {}
    for scene in made.todo:
        if not _stands(whole, scene):
            missing.setdefault(keys[scene], scene)  # copies of one file under two names give one image
    return replace(whole, missing=tuple(missing.values()))


def settled(scene: Scene, family: Family, known: presets.Presets) -> Scene:
    """Return a scene in which block weights are numbers, and adapters without any weight are left out.

    R and U are drawn by the image's seed, as in prompts.
    """
    return replace(
        scene,
        adapter=_settled(scene.adapter, scene.seed, family, known),
        second=_settled(scene.second, scene.seed, family, known),
    )


def _settled(worn: Worn | None, seed: int, family: Family, known: presets.Presets) -> Worn | None:
    if worn is None or worn.unet == worn.text == 0:
        return None
    vector = vectors.flat(1.0, family)
    if worn.blocks:
        vector = presets.choose(worn.blocks, family, known, vectors.Draws(seed))
    if worn.chosen:
        word, _, rest = worn.chosen.partition(" ")
        named = blocks.parse(rest if word == "NOT" else worn.chosen, family)
        weights = {
            block: worn.value if (block in named) != (word == "NOT") else vector.of(block)
            for block in blocks.names(family)
        }
        vector = vectors.from_blocks(weights, family)
    written = "" if set(vector.values) == {1.0} else vectors.write(vector)
    return Worn(worn.file, worn.unet, worn.text, written)


def _adapters(scenes: tuple[Scene, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(worn.file for scene in scenes for worn in scene.worn))


def _missing_files(scenes: tuple[Scene, ...]) -> Iterator[Problem]:
    for file in _adapters(scenes):
        path = Path(file)
        if not path.is_file():
            there = sorted(other.name for other in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
            near = f"There are {', '.join(there[:8])}." if there else "Choose a file that does."
            yield Problem("error", "adapter", f"{file} does not exist.", near)
        elif path.suffix != ".safetensors":
            yield Problem("error", "adapter", f"{file} is no .safetensors file.", "Choose one that is.")


def run(studio: Studio, request: Request, control: Control) -> Iterator[Event]:
    """Make every image that is missing, then sheets and page; the last event is Finished.

    A wish to stop is granted within an image; sheets and page then show what there is, and the next call goes on.
    Raises as `draft`, HostRefusal, RunConflict, DataError where the folder cannot be written.
    """
    started = time.monotonic()
    made = draft(studio, request)
    yield Planned("grid", made.lines(), len(made.missing), len(made.missing), 1)
    with _writing(request.folder):
        (request.folder / CELLS).mkdir(parents=True, exist_ok=True)
        for leftover in request.folder.rglob(".writing-*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
    count = 0
    if made.missing:
        with closing(_paint(studio, made, control)) as events:
            for event in events:
                count += isinstance(event, SampleMade)
                yield event
    labels = [label for side in made.grid.sides for label in (side.title, *side.labels)]
    for text in grid_sheet.unreadable(labels):
        yield Note("note", f"No font here has the letters of {text!r}: the sheet shows boxes, the page shows them.")
    with _writing(request.folder):
        written = _write_results(made, request)
    left = len(made.missing) - count
    if left:
        yield Note("note", f"{left} of {len(made.missing)} images are still to be made. Start again to go on.")
    reason: Literal["done", "stopped", "paused"] = "done"
    if left:
        reason = "paused" if control.wish == "pause" else "stopped"
    yield Finished(reason, count, tuple(map(str, written)), time.monotonic() - started)


def _paint(studio: Studio, made: Draft, control: Control) -> Generator[Event, None, None]:
    began, total = time.monotonic(), len(made.missing)
    yield Phase(_PHASE, 0, total)
    with studio.opened() as paint:
        for number, scene in enumerate(made.missing, 1):
            image = paint(scene, lambda: control.wish == "go") if control.wish == "go" else None
            if image is None:  # stopped here, or interrupted in the WebUI
                return
            path = made.path(scene)
            with _writing(path.parent), files.replacing(path) as temporary:
                _save(temporary, image, made.facts[scene])
            yield SampleMade(str(path), image.request.prompt, scene.seed, number, 0)
            yield Phase(_PHASE, number, total)
            if number == _TIMED < total:
                seconds = (time.monotonic() - began) / number * (total - number)
                span = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
                yield Note("note", f"{ESTIMATE}{span} for the others.")


def _save(path: Path, image: MadeImage, facts: Mapping[str, Any]) -> None:
    text = PngInfo()
    text.add_text("parameters", image.infotext)
    text.add_text(FACTS, json.dumps(facts, sort_keys=True))  # ASCII
    image.image.save(path, format="PNG", pnginfo=text)


def _stands(made: Draft, scene: Scene) -> bool:
    """Tell whether an image is there, whole, and made from what its name says."""
    path = made.path(scene)
    if not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            image.load()
            return json.loads(image.info.get(FACTS, "null")) == json.loads(json.dumps(made.facts[scene]))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return False


def _write_results(made: Draft, request: Request) -> tuple[Path, ...]:
    """Write a sheet for each page and seed, and the HTML page; those of an earlier grid in the folder go."""
    columns, rows, pages, seeds = made.grid.sides
    written: list[Path] = []
    for page in range(len(pages.labels)):
        for seed in range(len(seeds.labels)):
            title = ", ".join(text for text in (pages.labels[page], seeds.labels[seed]) if text)
            images = {}
            for (column, row, *place), scene in made.grid.scenes.items():
                if place == [page, seed] and made.path(scene).is_file():
                    with Image.open(made.path(scene)) as image:
                        images[column, row] = image.convert("RGB")
            sheet = grid_sheet.draw(images, Labels(columns.labels, rows.labels, title))
            written.append(request.folder / f"sheet-{len(written) + 1:02d}.png")
            with files.replacing(written[-1]) as temporary:
                # Less compressed than the images: written in less than half of the time, a sixth larger.
                sheet.save(temporary, format="PNG", compress_level=3)
    for old in request.folder.glob("sheet-[0-9]*.png"):
        if old not in written:
            old.unlink()
    pictures, shown = _pictures(made)
    content = grid_page.content(made.grid, pictures, shown)
    files.write_text(request.folder / RECORD, json.dumps(content, ensure_ascii=False))
    if request.config.page == "embedded":
        pictures = [replace(picture, source=_embedded(request.folder / picture.source)) for picture in pictures]
    title = f"Grid: {request.config.prompt}"[:120]
    files.write_text(request.folder / PAGE, grid_page.write(title, made.grid, pictures, shown))
    return (*written, request.folder / PAGE)


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _pictures(made: Draft) -> tuple[list[grid_page.Picture], dict[Position, int]]:
    """Return every image that is there once, with its file relative to the folder, and which one a cell shows."""
    numbers: dict[str, int] = {}
    pictures: list[grid_page.Picture] = []
    shown: dict[Position, int] = {}
    for place, scene in made.grid.scenes.items():
        key, path = made.keys[scene], made.path(scene)
        if not path.is_file():
            continue
        if key not in numbers:
            numbers[key] = len(pictures)
            with Image.open(path) as image:
                width, height, infotext = image.width, image.height, image.info.get("parameters", "")
            prompt = grid_cells.prompt_of(scene)
            pictures.append(grid_page.Picture(f"{CELLS}/{path.name}", infotext, prompt, width, height))
        shown[place] = numbers[key]
    return pictures, shown


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{error.filename or folder}: {error.strerror or error}."
        raise DataError(f"{text} Make room, or make the folder writable, and start again.") from error
