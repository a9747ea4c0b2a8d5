"""Picking as generators of events: what would be tried, and the trial of every saved epoch at every weight.

`draft` ends with a Draft and makes no image; `pick` ends with a Picked, having written report.json and report.html.
Images and what the tagger says of them are kept as they are made: a trial that is stopped goes on there the next time.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from lib_lora_trainer.adapters import existing
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.files import from_tensors
from lib_lora_trainer.app import pick_dataset
from lib_lora_trainer.app.pick_dataset import Surveyed
from lib_lora_trainer.app.preparation import DTYPES
from lib_lora_trainer.app.relay import relay
from lib_lora_trainer.app.threaded import Stopped
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Planned, SampleMade
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.evaluate import findings, pick_cells, pick_files, pick_page, pick_report
from lib_lora_trainer.evaluate.findings import Verdict
from lib_lora_trainer.evaluate.pick import Cell, Trial
from lib_lora_trainer.evaluate.pick_cells import Place, Reference, Seen
from lib_lora_trainer.evaluate.pick_files import AdapterFile
from lib_lora_trainer.evaluate.pick_options import PickOptions, Shot, shots, usual_side
from lib_lora_trainer.evaluate.pick_store import Store, key_of, writing
from lib_lora_trainer.hosts.api import Host, Lease, ModelInfo, Needs
from lib_lora_trainer.plan.plan import resolve_precision
from lib_lora_trainer.tagging import scores, wd14
from lib_lora_trainer.tagging.models import Found
from lib_lora_trainer.tagging.wd14 import Tagger

_TIMED = 3  # images after which the rest is estimated: the first one loads and compiles


@dataclass(frozen=True)
class PickRequest:
    """What is tried. files: adapters; config: of their run, for the dataset and the triggers; folder: for the results.

    traits: what the trigger has to bring, or none for what follows from `before`, a folder with the captions before
    pruning, or from the pictures. device: where the tagger computes.
    """

    files: tuple[Path, ...]
    config: RunConfig
    tagger: Found
    folder: Path
    traits: tuple[str, ...] = ()
    before: Path | None = None
    options: PickOptions = field(default_factory=PickOptions)
    device: str = "cpu"


@dataclass(frozen=True)
class Draft:
    """What a trial would make. info: the model; missing: images that are not kept from an earlier trial."""

    info: ModelInfo
    files: tuple[AdapterFile, ...]
    surveyed: Surveyed
    shots: tuple[Shot, ...]
    cells: tuple[tuple[AdapterFile | None, float], ...]
    missing: int

    def lines(self) -> tuple[str, ...]:
        """Return it in words."""
        weights = dict.fromkeys(f"{weight:g}" for file, weight in self.cells if file)
        parts = [
            f"{', '.join(part.words)} has to bring {', '.join(part.traits)} ({part.pictures} pictures)"
            for part in self.surveyed.subject.parts
        ]
        first, last = self.files[0].label, self.files[-1].label
        what = f"{len(self.files)} files ({first} … {last})" if first != last else first
        return (
            f"{what} × weights {', '.join(weights)}, "
            f"and the base model: {len(self.cells)} cells of {len(self.shots)} images, {self.missing} still to be made",
            *parts,
        )


@dataclass(frozen=True)
class Picked:
    """The result of a trial, and where its report is."""

    verdict: Verdict
    trial: Trial
    report: Path
    page: Path


def draft(host: Host, request: PickRequest, control: Control) -> Iterator[Event | Draft]:
    """Look at files and dataset; the last value is a Draft, or Finished when stopped.

    Raises ProblemsFound for impossible options or when there is nothing to look for, ConfigError for files that are no
    run's or an unknown sampler, DataError for a file that cannot be read, HostRefusal.
    """
    _check(host, request)
    files = pick_files.ordered(request.files)
    try:
        with wd14.opened(request.tagger, request.device) as tagger:
            surveyed = yield from pick_dataset.survey(request, tagger, _store(request), control)
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    info = host.info()
    asked = shots(surveyed.subject, request.options, request.options.side or usual_side(request.config.data))
    cells = ((None, 0.0), *((file, weight) for file in files for weight in dict.fromkeys(request.options.weights)))
    keys = [_key(file, weight, shot, info) for file, weight in cells for shot in asked]
    missing = sum(not _store(request).image(key).is_file() for key in keys)
    yield Draft(info, files, surveyed, asked, cells, missing)


def pick(host: Host, request: PickRequest, control: Control) -> Iterator[Event | Picked]:
    """Try every file at every weight; the last value is Picked, or Finished when stopped or paused.

    Adapters are attached for as long as their images are made; the model is then as before. Raises as `draft`, and
    DataError for an adapter of another model or a folder that cannot be written. Closing the generator ends the lease.
    """
    started = time.monotonic()
    made = yield from relay(draft(host, request, control), Draft)
    if made is None:
        return  # stopped, which was told
    for problem in made.surveyed.problems:
        yield Note(problem.severity, str(problem))
    yield Planned("pick", made.lines(), len(made.cells) * len(made.shots), 0, 0)
    trying = _Trying(request, made, control)
    needs = Needs(compute_dtype=DTYPES[resolve_precision("auto", made.info)])
    with (
        wd14.opened(request.tagger, request.device) as tagger,
        host.lease(needs) as lease,
        closing(trying.cells(lease, tagger)) as events,  # the adapter it has attached goes before the lease ends
    ):
        yield from events
    if len(trying.found) < len(made.cells):
        rest = len(made.cells) - len(trying.found)
        yield Note("note", f"{rest} of {len(made.cells)} cells are still to be tried. Start again to go on.")
        reason: Literal["stopped", "paused"] = "paused" if control.wish == "pause" else "stopped"
        yield Finished(reason, trying.images, (), time.monotonic() - started)
        return
    base, *cells = trying.found
    trial = Trial(base, tuple(cells), made.surveyed.subject.ceiling)
    verdict = findings.judge(trial)
    report = pick_report.Report(trial, verdict, made.shots, made.surveyed.subject, trying.keys, request.options)
    page = request.folder / "report.html"
    with writing(request.folder):
        pick_report.write(request.folder / "report.json", report)
        pick_page.write(page, report, _store(request))
    yield Note("note", f"wrote {page}")
    yield Picked(verdict, trial, request.folder / "report.json", page)


class _Trying:
    """A trial in work. found: the cells that are complete, the base model's first; images: made by now."""

    def __init__(self, request: PickRequest, made: Draft, control: Control) -> None:
        self.found: list[Cell] = []
        self.keys: list[tuple[str, ...]] = []
        self.images = 0
        self._made = made
        self._control = control
        self._store = _store(request)
        self._reference: Reference | None = None
        self._began = time.monotonic()
        self._done = 0

    def cells(self, lease: Lease, tagger: Tagger) -> Generator[Event, None, None]:
        """Make and look at the images of all cells, one file after the other; ends early on the user's wish."""
        yield Phase("trying epochs and weights", 0, self._total)
        try:
            yield from self._cell(lease, tagger, None, (None, 0.0))
            for file in self._made.files:
                missing = [each for each in self._made.cells if each[0] is file and self._missing(each)]
                attached = self._attachment(lease, file) if missing else None
                with attached or nullcontext():
                    for each in self._made.cells:
                        if each[0] is file:
                            yield from self._cell(lease, tagger, attached, each)
        except Stopped:
            return

    @property
    def _total(self) -> int:
        return len(self._made.cells) * len(self._made.shots)

    def _missing(self, cell: tuple[AdapterFile | None, float]) -> bool:
        keys = [_key(*cell, shot, self._made.info) for shot in self._made.shots]
        return any(self._store.load_image(key) is None for key in keys)

    def _attachment(self, lease: Lease, file: AdapterFile) -> Attachment:
        adapters = from_tensors(existing.read(file.path), lease.targets(), lease.info.family)
        ready = {layer: adapter.to(lease.device).eval() for layer, adapter in adapters.items()}
        return Attachment(lease.targets(), ready)

    def _cell(
        self, lease: Lease, tagger: Tagger, attached: Attachment | None, cell: tuple[AdapterFile | None, float]
    ) -> Generator[Event, None, None]:
        """Make the missing images of a cell, and look at all of them. Raises Stopped on the user's wish."""
        file, weight = cell
        seen: list[Seen] = []
        keys = tuple(_key(file, weight, shot, self._made.info) for shot in self._made.shots)
        for key, shot in zip(keys, self._made.shots, strict=True):
            if self._control.wish != "go":
                raise Stopped
            image = self._store.load_image(key)
            if image is None:
                image = self._generated(lease, attached, weight, key, shot)
                where = (file.step, file.epoch) if file else (0, 0)
                yield SampleMade(str(self._store.image(key)), shot.request.prompt, shot.request.seed, *where)
                if self.images == _TIMED or (self.images > _TIMED and self._done % (10 * len(keys)) == 0):
                    yield self._estimate()
            row = self._store.load_scores(key, len(tagger.labels))
            if row is None:
                row = wd14.probabilities(tagger, [image])[0]
                self._store.put_scores(key, row)
                # As it will be read the next time, so that a trial in one go and one that went on agree.
                row = row.astype(np.float16).astype(np.float32)
            seen.append(Seen(image, row))
            self._done += 1
            yield Phase("trying epochs and weights", self._done, self._total)
        self._add(cell, seen, keys)

    def _generated(self, lease: Lease, attached: Attachment | None, weight: float, key: str, shot: Shot) -> Image.Image:
        """Make one image, alone, so that none depends on its neighbours; keep it. Raises Stopped when interrupted."""
        with torch.no_grad(), attached.at_strength(weight) if attached else nullcontext():
            made = list(lease.generate([shot.request], lambda: self._control.wish == "go"))
        if not made:  # interrupted, here or in the WebUI
            raise Stopped
        self._store.put_image(key, made[0])
        self.images += 1
        return made[0].image.convert("RGB")

    def _estimate(self) -> Note:
        left = self._made.missing - self.images
        seconds = (time.monotonic() - self._began) / self.images * max(0, left)
        shown = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        return Note("note", f"About {shown} for the {left} images that are left.")

    def _add(self, cell: tuple[AdapterFile | None, float], seen: Sequence[Seen], keys: tuple[str, ...]) -> None:
        file, weight = cell
        if self._reference is None:
            about = self._made.surveyed
            images = tuple(each.image for each in seen)
            shape = self._made.shots[0].request
            pictures, usual = about.pictures((shape.width, shape.height))
            span = pick_cells.span_of(images, about.traces)
            self._reference = Reference(about.looking, pictures, usual, about.mean, span, images)
        place = Place(file.label, file.step, file.epoch, weight) if file else Place()
        self.found.append(pick_cells.cell(place, self._made.shots, seen, self._reference))
        self.keys.append(keys)


def _key(file: AdapterFile | None, weight: float, shot: Shot, info: ModelInfo) -> str:
    return key_of(file.digest if file else "", weight, shot.request, info, resolve_precision("auto", info))


def _store(request: PickRequest) -> Store:
    return Store(request.folder, scores.identity(request.tagger))


def _check(host: Host, request: PickRequest) -> None:
    problems = range_problems(request.options)
    if not request.options.weights:
        problems.append(Problem("error", "weights", "there is none.", "Give at least one, such as 1."))
    if problems:
        raise ProblemsFound(tuple(problems))
    if request.options.sampler not in host.samplers():
        known = ", ".join(host.samplers())
        raise ConfigError(f"sampler: the host has no {request.options.sampler!r}. Choose one of: {known}.")
