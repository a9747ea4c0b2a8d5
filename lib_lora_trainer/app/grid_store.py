"""The grids of a run: a folder each in the run's own, with the settings it was made from and what it shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.app import grid_jobs
from lib_lora_trainer.base import codec, files
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.evaluate import grid
from lib_lora_trainer.evaluate.grid import GridConfig
from lib_lora_trainer.evaluate.grid_cells import Position, Side
from lib_lora_trainer.evaluate.grid_page import Picture

FOLDER = "grids"
"""In a run's folder."""
SETTINGS = "grid.toml"


@dataclass(frozen=True)
class Kept:
    """A grid as it was left. pictures: their sources are files, relative to the folder; cells: which one each shows."""

    folder: Path
    sides: tuple[Side, Side, Side, Side]
    pictures: tuple[Picture, ...]
    cells: dict[Position, int]

    @property
    def places(self) -> int:
        """How many cells it has, made or not."""
        columns, rows, pages, seeds = (len(side.labels) for side in self.sides)
        return columns * rows * pages * seeds

    @property
    def sheets(self) -> tuple[Path, ...]:
        """The labelled sheets, in order."""
        return tuple(sorted(self.folder.glob("sheet-[0-9]*.png")))

    @property
    def page(self) -> Path:
        """The page with everything."""
        return self.folder / grid_jobs.PAGE


def place(run: Path, name: str) -> Path:
    """Return the folder of a run's grid. run: the run's folder. Raises ConfigError for an impossible name."""
    return run / FOLDER / files.check_name(name, "name")


def names(run: Path) -> tuple[str, ...]:
    """Return the names of a run's grids, what was begun or changed last first; others' folders are left out."""
    found = [(path.stat().st_mtime_ns, path.parent.name) for path in (run / FOLDER).glob(f"*/{SETTINGS}")]
    return tuple(name for _, name in sorted(found, reverse=True) if _is_name(name))


def _is_name(text: str) -> bool:
    try:
        files.check_name(text, "name")
    except ConfigError:
        return False
    return True


def begin(folder: Path, config: GridConfig) -> None:
    """Write the settings of a grid, so that it can be gone on with whatever happens to it."""
    files.write_text(folder / SETTINGS, codec.to_toml(config))


def settings(folder: Path) -> GridConfig:
    """Return the settings of a grid. Raises ConfigError when there is none, or as `grid.read`."""
    if not (folder / SETTINGS).is_file():
        raise ConfigError(f"grid: {folder.name!r} is no grid of this run. Choose one in the list.")
    return grid.read(folder / SETTINGS)


def kept(folder: Path) -> Kept | None:
    """Return a grid as it was left; None when nothing of it was written yet.

    Raises DataError naming the file when it cannot be read.
    """
    path = folder / grid_jobs.RECORD
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        one, two, three, four = (Side(side["title"], tuple(side["labels"])) for side in content["sides"])
        pictures = tuple(Picture(**picture) for picture in content["pictures"])
        cells = {(c, r, p, s): picture for c, r, p, s, picture in content["cells"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Continue the grid, and it is written anew.") from error
    return Kept(folder, (one, two, three, four), pictures, cells)
