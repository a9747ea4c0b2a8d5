"""Tagging as generators of events: models are got when the user asks, pictures are looked at, captions are proposed.

`draft` ends with a Draft, which `dataset_tools.apply` writes and `dataset_tools.undo` takes back. What taggers said is
kept beside the dataset's journal; the same tagger is not asked twice about the same content.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.app import tag_drafts
from lib_lora_trainer.app.dataset_tools import Draft, Request, gathered, recover
from lib_lora_trainer.app.tag_digests import digest
from lib_lora_trainer.app.threaded import Stopped
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, Problem, ProblemsFound, UserError
from lib_lora_trainer.base.events import Event, Finished, Note, Phase
from lib_lora_trainer.dataset import threads
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.journal import FOLDER
from lib_lora_trainer.dataset.pixels import open_upright
from lib_lora_trainer.tagging import choose, hub, models, options, scores, session, wd14
from lib_lora_trainer.tagging.choose import Opinion
from lib_lora_trainer.tagging.labels import read_labels
from lib_lora_trainer.tagging.models import CATALOGUE, FILES, Found, Model
from lib_lora_trainer.tagging.options import TagOptions
from lib_lora_trainer.tagging.preprocess import prepared
from lib_lora_trainer.tagging.scores import Kept, Scores
from lib_lora_trainer.tagging.wd14 import Tagger

Turn = Callable[[], AbstractContextManager[Any]]
"""Waits until the GPU is free, and keeps others off it until the block ends: the WebUI's queue lock."""

SAVED_EVERY = 2000  # pictures; so many are looked at again after a crash


@dataclass(frozen=True)
class Place:
    """Where taggers are. home: ours, into which models are downloaded; others: further folders that are searched.

    turn: entered while a tagger is open on the GPU; on the CPU it runs beside whatever is generated.
    """

    home: Path
    others: tuple[Path, ...] = ()
    turn: Turn = nullcontext

    @property
    def folders(self) -> tuple[Path, ...]:
        """All of them, ours first."""
        return (self.home, *self.others)


@dataclass(frozen=True)
class _Looked:
    path: Path
    digest: str = ""
    pixels: NDArray[Any] | None = None
    problem: Problem | None = None


def catalogue(place: Place) -> tuple[tuple[Model, Found | None], ...]:
    """Return every known tagger with where it lies on this machine, None where it has to be downloaded."""
    return tuple((model, models.find(model.name, place.folders)) for model in CATALOGUE)


def is_absent(name: str, place: Place) -> bool:
    """Tell whether a tagger has to be downloaded first. Raises as `models.find`."""
    return models.find(name, place.folders) is None


def download(name: str, place: Place, control: Control) -> Iterator[Event]:
    """Get a tagger of the catalogue from the hub; the last event is Finished. Raises as `hub.download`, ConfigError."""
    model, started = models.known(name), time.monotonic()
    if model is None:
        known = ", ".join(each.name for each in CATALOGUE)
        raise ConfigError(f"{name!r} is no tagger of the hub that is known here. Known: {known}.")
    folder = place.home / model.name
    complete = yield from hub.download(model, folder, control)
    files = tuple(str(folder / file) for file in FILES) if complete else ()
    yield Finished("done" if complete else "stopped", len(files), files, time.monotonic() - started)


def kept_scores(root: Path) -> Scores:
    """Return what taggers have said about the pictures of a dataset; looks only."""
    return scores.load(_folder(root), digest)


def draft(request: Request, place: Place, control: Control) -> Iterator[Event | Draft]:
    """Look at a source's pictures with all taggers; the last value is the Draft, or Finished when stopped.

    request.options: a TagOptions. What was looked at until a stop is kept. Raises ProblemsFound for impossible options,
    UserError for a tagger that is not on this machine or does not start, DataError when there is no picture.
    """
    wish: TagOptions = request.options
    mistakes = options.problems(wish)
    if mistakes:
        raise ProblemsFound(tuple(mistakes))
    yield from recover(Path(request.data.sources[request.index].path))
    dataset = gathered(request)
    taggers = located(wish, place)
    paths = [member.path for member in dataset.members]
    if wish.mode == "if-empty":
        paths = [path for path in paths if tag_drafts.is_empty(path, dataset)]
        if len(paths) < len(dataset.members):
            yield Note("note", f"{len(dataset.members) - len(paths)} pictures have captions, which stay as they are.")
    job = _Job(dataset.root, wish, control, place.turn)
    opinions: dict[Path, list[Opinion]] = {path: [] for path in paths}
    try:
        for tagger in taggers if paths else ():
            kept = yield from job.asked(tagger, paths)
            names = frozenset(label.name for label in kept.labels)
            for path in (path for path in paths if path not in job.problems):
                scored = kept.scored(job.digests[path])
                opinions[path] += [Opinion(scored, tagger.about, names)] if scored else []
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    found = {path: job.problems.get(path) or choose.tags(said, wish) for path, said in opinions.items()}
    yield tag_drafts.draft(dataset, found, wish.mode)


def located(wish: TagOptions, place: Place) -> tuple[Found, ...]:
    """Return the taggers that are wanted. Raises UserError naming all that are not on this machine, or as `find`."""
    found = {name: models.find(name, place.folders) for name in dict.fromkeys(wish.taggers)}
    missing = [name for name, each in found.items() if each is None]
    if missing:
        raise UserError(f"{', '.join(missing)}: not on this machine. Download, or choose the folder where it lies.")
    return tuple(each for each in found.values() if each is not None)


def _folder(root: Path) -> Path:
    return absolute(str(root)) / FOLDER / "scores"


class _Job:
    """One look at pictures, by one tagger after the other.

    digests: of the contents that were looked at; problems: why a picture cannot be tagged.
    """

    def __init__(self, root: Path, wish: TagOptions, control: Control, turn: Turn) -> None:
        self.digests: dict[Path, str] = {}
        self.problems: dict[Path, Problem] = {}
        self._folder = _folder(root)
        self._wish = wish
        self._control = control
        self._turn = turn

    def asked(self, tagger: Found, paths: Sequence[Path]) -> Generator[Event, None, Kept]:
        """Return what a tagger says about pictures, looking only at those it has not seen yet."""
        yield Phase(f"reading {tagger.about.name}", 0, 1)
        identity = scores.identity(tagger)
        yield Phase(f"reading {tagger.about.name}", 1, 1)
        empty = Kept(tagger.about.name, identity, read_labels(tagger.tags))
        known = scores.read(scores.path_of(self._folder, empty.tagger, identity))
        kept = known if known is not None and known.identity == identity else empty
        unseen = [path for path in paths if path not in self.problems]
        if kept.pictures:
            unseen = yield from self._unseen(unseen, kept)
        if unseen:
            failed = ""
            try:
                yield from self._look(tagger, unseen, kept)
            finally:
                failed = self._saved(kept)
            if failed:
                yield Note("warning", failed)
        return kept

    def _unseen(self, paths: Sequence[Path], kept: Kept) -> Generator[Event, None, list[Path]]:
        """Return the pictures whose content the tagger has not seen."""
        unseen: list[Path] = []
        with closing(threads.in_order(self._identified, paths)) as looked:
            for done, each in enumerate(looked, start=1):
                self._go_on()
                unseen += [each.path] if self._told(each) and each.digest not in kept.pictures else []
                yield Phase("looking for kept scores", done, len(paths))
        return unseen

    def _look(self, tagger: Found, paths: Sequence[Path], kept: Kept) -> Generator[Event, None, None]:
        """Have a tagger look at pictures; on a GPU under the lock, from before it opens until it is closed."""
        with ExitStack() as stack:
            turned = stack.enter_context(ExitStack())  # left last
            if session.gpu_offered(self._wish.device):
                yield Phase("waiting for the GPU", 0, 1)
                turned.enter_context(self._turn())
                yield Phase("waiting for the GPU", 1, 1)
                with suppress(ImportError):  # brings the CUDA libraries that onnxruntime-gpu before 1.21 looks for
                    import_module("torch")
            running = stack.enter_context(wd14.opened(tagger, self._wish.device))
            if not running.session.on_gpu:
                turned.close()
            if running.session.note is not None:
                yield running.session.note
            yield from self._batches(running, f"tagging with {tagger.about.name}", paths, kept)

    def _batches(self, running: Tagger, name: str, paths: Sequence[Path], kept: Kept) -> Generator[Event, None, None]:
        """Ask about one batch after the other, while threads prepare the pictures of the next ones."""
        layout = running.session.layout
        size = layout.batch or self._wish.batch

        def look(path: Path) -> _Looked:
            try:
                return _Looked(path, self._digest(path), prepared(open_upright(path), layout))
            except DataError as error:
                return _left_out(path, error)

        done, batch = 0, list[_Looked]()
        # As many wait prepared as two batches take, so that one is complete while another is computed.
        together = -(-size // threads.count())
        with closing(threads.in_order(look, paths, together)) as looked:
            for number, each in enumerate(looked, start=1):
                self._go_on()
                batch += [each] if self._told(each) else []
                if len(batch) == size or (number == len(paths) and batch):
                    rows = running.session.run(np.stack([one.pixels for one in batch if one.pixels is not None]))
                    for one, row in zip(batch, rows, strict=True):
                        kept.keep(one.digest, row)
                    if number // SAVED_EVERY > done // SAVED_EVERY:
                        self._saved(kept)
                    batch, done = [], number
                    yield Phase(name, done, len(paths))
        if done < len(paths):  # the last ones cannot be read
            yield Phase(name, len(paths), len(paths))

    def _identified(self, path: Path) -> _Looked:
        try:
            return _Looked(path, self._digest(path))
        except DataError as error:
            return _left_out(path, error)

    def _digest(self, path: Path) -> str:
        """Return a picture's digest, the same throughout the job."""
        if path not in self.digests:
            self.digests[path] = digest(path)
        return self.digests[path]

    def _told(self, each: _Looked) -> bool:
        """Remember what is wrong with a picture, and return whether nothing is."""
        if each.problem is not None:
            self.problems[each.path] = each.problem
        return each.problem is None

    def _go_on(self) -> None:
        if self._control.wish != "go":
            raise Stopped

    def _saved(self, kept: Kept) -> str:
        """Write what is known until now; return why that is impossible, "" when it is done."""
        try:
            scores.write(self._folder, kept)
        except OSError as error:
            reason = error.strerror or error
            return f"{printable(self._folder)}: the scores cannot be kept: {reason}. The captions are not affected."
        return ""


def _left_out(path: Path, error: DataError) -> _Looked:
    text = str(error).removeprefix(f"{path}: ")
    return _Looked(path, problem=Problem("warning", printable(path), f"is not tagged: {text}"))
