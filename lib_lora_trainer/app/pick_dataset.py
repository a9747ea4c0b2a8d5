"""What a trial is compared with: the run's dataset as the tagger and the measures see it, and the run's files."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.threaded import Stopped
from lib_lora_trainer.base import codec
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, Problem
from lib_lora_trainer.base.events import Event, Phase
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.captions.prune_values import parse
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.captions.variants import effective
from lib_lora_trainer.config import run as run_config
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.caption_files import read_caption
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.pixels import open_upright
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.evaluate import measures, pick_files, pick_subject
from lib_lora_trainer.evaluate.measures import Traces, Vector
from lib_lora_trainer.evaluate.pick_store import Store
from lib_lora_trainer.evaluate.pick_subject import Example, Looking, Subject
from lib_lora_trainer.tagging import wd14
from lib_lora_trainer.tagging.wd14 import Tagger

if TYPE_CHECKING:
    from lib_lora_trainer.app.pick_jobs import PickRequest

_LARGEST = 512  # pixels; a dataset's pictures are kept no larger while they are compared


@dataclass(frozen=True)
class Surveyed:
    """The dataset. mean: (labels,) mean scores of its pictures; traces: of each; images: small ones of each."""

    subject: Subject
    looking: Looking
    mean: NDArray[np.float32]
    traces: tuple[Traces, ...]
    images: tuple[Image.Image, ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()

    def pictures(self, shape: tuple[int, int]) -> tuple[tuple[Vector, ...], float]:
        """Return thumbnails for images of a shape (width, height), and how far they are from each other."""
        vectors = tuple(measures.thumbnail(image, shape) for image in self.images)
        return vectors, measures.apart(vectors)


def survey(request: PickRequest, tagger: Tagger, store: Store, control: Control) -> Generator[Event, None, Surveyed]:
    """Look at a run's pictures, regularization images left out, and settle what is asked for.

    Raises ProblemsFound or ConfigError where nothing can be asked, Stopped on the user's wish.
    """
    config = request.config
    found = scan(config.data, config.triggers, depth="headers")
    items = [item for item in found.items if not item.regularization]
    if not items:
        reasons = [str(problem) for problem in found.problems if problem.severity == "error"]
        raise ConfigError(f"data.sources: has no pictures to compare with. {' '.join(reasons[:3])}".strip())
    before = _captions_in(request.before)
    looking = Looking(tagger.labels, request.tagger.about.general)
    examples: list[Example] = []
    traces: list[Traces] = []
    images: list[Image.Image] = []
    for number, item in enumerate(items, 1):
        if control.wish != "go":
            raise Stopped
        image = open_upright(item.path)
        examples.append(Example(_tags(item, config), _scores(item.path, image, tagger, store), _before(item, before)))
        image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
        traces.append(measures.traces(image))
        images.append(image)
        yield Phase("looking at the dataset", number, len(items))
    subject, notes = pick_subject.subject(examples, config.triggers, request.traits, looking)
    subject = pick_subject.with_scenes(subject, examples, looking, request.options.images)
    mean = np.mean([example.scores for example in examples], axis=0, dtype=np.float32)
    return Surveyed(subject, looking, mean, tuple(traces), tuple(images), notes)


def _scores(path: Path, image: Image.Image, tagger: Tagger, store: Store) -> NDArray[np.float32]:
    key = f"dataset-{sha256(path)[:40]}"
    row = store.load_scores(key, len(tagger.labels))
    if row is None:
        row = wd14.probabilities(tagger, [image])[0]
        store.put_scores(key, row)
        row = row.astype(np.float16).astype(np.float32)  # as it will be read the next time
    return row


def _tags(item: Item, config: RunConfig) -> tuple[str, ...]:
    caption = effective(config.data.caption, config.data.sources[item.source])
    own = parse(item.path.name, item.caption, caption.separator).tags
    return tuple(dict.fromkeys((*split(caption.prefix), *own, *split(caption.suffix))))


def _before(item: Item, before: dict[str, Path]) -> tuple[str, ...]:
    path = before.get(item.path.stem)
    return split(read_caption(path, ", ")[0]) if path is not None else ()


def _captions_in(folder: Path | None) -> dict[str, Path]:
    """Return the caption files below a folder by the name of their picture. Raises ConfigError when there is none."""
    if folder is None:
        return {}
    found: dict[str, Path] = {}
    for path in sorted((*folder.rglob("*.txt"), *folder.rglob("*.caption"))):
        if path.stem in found:
            raise ConfigError(f"{folder}: has two captions named {path.stem}. Give a folder in which names are unique.")
        found[path.stem] = path
    if not found:
        raise ConfigError(f"{folder}: has no captions. Give the folder with the captions as they were before pruning.")
    return found


def files_of(places: Sequence[Path]) -> tuple[Path, ...]:
    """Return the adapter files that places name: themselves, those of a run's folder, or all in a folder.

    A run's folder is one with the journal of a run, or one that the command train made beside its adapters.
    Raises DataError for a place that is neither, ConfigError for a folder without any.
    """
    found: list[Path] = []
    for place in places:
        if place.is_file():
            found.append(place)
        elif place.is_dir():
            inside = _of_run(place)
            if not inside:
                raise ConfigError(f"{place}: has no adapter. Give a run's folder, or its .safetensors files.")
            found += inside
        else:
            raise DataError(f"{place}: there is no such file or folder. Give a run's folder, or .safetensors files.")
    return tuple(found)


def _of_run(folder: Path) -> list[Path]:
    if (folder / runs.JOURNAL).is_file():
        written = map(Path, runs.adapters_of(runs.read_events(folder)))
        return [path for path in written if path.is_file()]
    record = folder / "run.json"
    if record.is_file():
        stem = str(json.loads(record.read_text(encoding="utf-8"))["stem"])
        saved = re.compile(re.escape(stem) + r"(-\d{6}|-step\d{8})?")
        return sorted(path for path in folder.parent.glob("*.safetensors") if saved.fullmatch(path.stem))
    return sorted(folder.glob("*.safetensors"))


def config_of(files: Sequence[Path], place: Path | None = None) -> RunConfig:
    """Return the configuration of a run: in a file, or as its last adapter has it.

    Raises ConfigError or ProblemsFound when it cannot be read, ConfigError for an adapter that does not say it.
    """
    if place is not None:
        return run_config.read(place)
    last = pick_files.ordered(files)[-1]
    text = last.about.get("lora_trainer_config", "")
    if not text:
        raise ConfigError(
            f"{last.path}: does not say how it was trained. Give the run's settings: --config CONFIG.toml."
        )
    return codec.from_toml(RunConfig, text, str(last.path), run_config.MIGRATIONS)
