"""What regularization images there are and would be made: the captions for a look, and the draft before anything is done.

Both end with a value and change nothing. A wish to stop is granted while the pictures are read.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lib_lora_trainer.app import reg_folder, reg_images
from lib_lora_trainer.app.reg_folder import Standing, Wish
from lib_lora_trainer.app.reg_images import RegImage
from lib_lora_trainer.app.threaded import Report, Stopped, reported
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.captions.reduced import matches
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.hosts.api import Host
from lib_lora_trainer.plan import checks, rules_training
from lib_lora_trainer.plan.case import Case

_BYTES_PER_PIXEL = 2.0  # of a PNG without smooth areas; images that are there already say it better
_SMALLEST = 64  # pixels on a side that hosts make
_STATES = {"made": "there already", "missing": "missing", "changed": "made otherwise", "own": "of your own"}


@dataclass(frozen=True)
class Request:
    """What images are made for, and where. config: the run that they are for; folder: where they go.

    only: names of images, or of their pictures, that this is about, with * and ?; none: all. A whole name of an image
    means that one alone. reroll: those that are to be made with another seed; nothing else is made then. found: a scan
    of `reg_images.training_part`; made if absent.
    """

    config: RunConfig
    options: RegularizationConfig
    folder: Path
    only: tuple[str, ...] = ()
    reroll: tuple[str, ...] = ()
    found: Scan | None = None


@dataclass(frozen=True)
class Draft:
    """What there is and what would be made.

    standing: of each image that has a caption; left_out: those that have none. todo: names of the images to make.
    bytes: that these take on the disk, estimated. numbers: how often an epoch is to show each image, by folder. found:
    the scan that it was made from.
    """

    standing: tuple[Standing, ...]
    left_out: tuple[RegImage, ...]
    todo: frozenset[str]
    bytes: int
    numbers: dict[str, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    found: Scan | None = field(default=None, repr=False, compare=False)

    @property
    def to_make(self) -> tuple[Standing, ...]:
        """The images to make, in order."""
        return tuple(each for each in self.standing if each.image.name in self.todo)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep it from being done."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def lines(self) -> tuple[str, ...]:
        """Return the draft in words."""
        states = Counter[str](each.state for each in self.standing)
        sizes = Counter(each.image.size for each in self.to_make)
        told = ", ".join(f"{states[state]} {text}" for state, text in _STATES.items() if states[state])
        lines = [f"{len(self.standing)} regularization images: {told or 'none'}. {len(self.todo)} to make."]
        if sizes:
            shown = ", ".join(f"{width}×{height}: {count}" for (width, height), count in sorted(sizes.items()))
            lines.append(f"Sizes: {shown}. About {self.bytes / 1e6:.1f} MB.")
        changed = Counter(name for each in self.to_make for name in each.changed)
        if changed:
            lines.append(f"Made anew for: {', '.join(sorted(changed))}. The old ones go to the holding.")
        return tuple(lines)


def preview(request: Request, control: Control) -> Iterator[Event | tuple[RegImage, ...]]:
    """List every image with its picture, the trained and the reduced caption; the last value, or Finished when stopped.

    Raises ProblemsFound for settings, folders and pictures from which none can be made.
    """
    try:
        _, images, problems = yield from _listed(request, control)
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    for problem in problems:
        yield Note(problem.severity, str(problem))
    yield images


def _listed(
    request: Request, control: Control
) -> Generator[Event, None, tuple[Scan, tuple[RegImage, ...], tuple[Problem, ...]]]:
    config, options = request.config, request.options
    unusable = (*range_problems(options, "regularization."), *checks.settings(config))
    unusable = unusable or tuple(reg_images.option_problems(config, options, request.folder))
    if unusable:
        raise ProblemsFound(unusable)
    found = request.found or (yield from _scanned(config, control))
    errors = tuple(problem for problem in found.problems if problem.severity == "error")
    if errors:
        raise ProblemsFound(errors)
    images = reg_images.list_images(found, config, options)
    return found, images, tuple(reg_images.image_problems(found, images, config, options))


def _scanned(config: RunConfig, control: Control) -> Generator[Event, None, Scan]:
    def work(report: Report) -> Scan:
        data = reg_images.training_part(config.data)
        return scan(data, config.triggers, partial(report, "reading pictures"), "headers")

    return (yield from reported(work, control, "scan"))


def draft(host: Host, request: Request, control: Control) -> Iterator[Event | Draft]:
    """Say what would be made; the last value is the Draft, or Finished when stopped.

    Raises as `preview`, and HostRefusal when the host has no model.
    """
    try:
        found, images, problems = yield from _listed(request, control)
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    wish = Wish(request.config, request.options, host.info())
    again, unknown = _chosen(images, request.reroll, "reroll")
    only, more_unknown = _chosen(images, request.only, "only")
    small = [image for image in images if min(image.size) < _SMALLEST]
    wanted = [image for image in images if image.caption and min(image.size) >= _SMALLEST]
    standing = reg_folder.look(wanted, request.folder, wish, again)
    chosen = again if request.reroll else frozenset(image.name for image in wanted)
    if request.only:
        chosen &= only
    todo = frozenset(
        each.image.name for each in standing if each.image.name in chosen and each.state in ("missing", "changed")
    )
    numbers = {name: times for name, (_, _, times) in reg_images.weights(found, wanted).items()}
    left_out = tuple(image for image in images if not image.caption or min(image.size) < _SMALLEST)
    made = Draft(standing, left_out, todo, _bytes(standing, todo), numbers, found=found)
    other_model = (
        problem
        for problem in rules_training.model(Case(wish.model, request.config, found, 0, 0, frozenset()))
        if problem.where == "base_model"
    )
    about_host = (*_about_small(small), *_about_sampler(host, request.options), *other_model)
    about_folder = _about_folder(request.folder, made, images)
    yield replace(made, problems=(*problems, *unknown, *more_unknown, *about_host, *about_folder))


def _chosen(
    images: Sequence[RegImage], patterns: Sequence[str], where: str
) -> tuple[frozenset[str], tuple[Problem, ...]]:
    chosen: set[str] = set()
    unknown: list[Problem] = []
    names = {image.name for image in images}
    for pattern in patterns:
        found = {pattern} & names  # a whole name is no pattern, also where the file's name has a * or ? in it
        found = found or {image.name for image in images if any(matches(name, pattern) for name in _called(image))}
        chosen |= found
        if not found:
            text = f"{pattern!r} is no image here."
            fix = "Give a name as the list has it, such as " + (repr(images[0].name) if images else "'set/one'") + "."
            unknown.append(Problem("error", where, text, fix))
    return frozenset(chosen), tuple(unknown)


def _called(image: RegImage) -> tuple[str, ...]:
    """Return what an image may be called: its name, with and without its folder and ending, and its picture's."""
    last = image.name.rpartition("/")[2]
    return (image.name, f"{image.name}.png", last, f"{last}.png", image.picture.name, str(image.picture))


def _bytes(standing: Sequence[Standing], todo: frozenset[str]) -> int:
    there = [(each.path.stat().st_size, each.image.size) for each in standing if each.path.is_file()]
    pixels = sum(width * height for _, (width, height) in there)
    rate = sum(size for size, _ in there) / pixels if pixels else _BYTES_PER_PIXEL
    return round(
        sum(rate * each.image.size[0] * each.image.size[1] + 4096 for each in standing if each.image.name in todo)
    )


def _about_small(small: Sequence[RegImage]) -> Iterator[Problem]:
    if small:
        text = f"{len(small)} pictures are trained at less than {_SMALLEST} pixels a side, too small for an image."
        yield Problem("warning", "data.no_upscale", text, "Switch it off, or replace those pictures.")


def _about_sampler(host: Host, options: RegularizationConfig) -> Iterator[Problem]:
    known = host.samplers()
    if options.sampler not in known and f"{options.sampler} {options.scheduler}" not in known:
        text = f"{options.sampler!r} is not a sampler here."
        yield Problem("error", "regularization.sampler", text, f"Choose one of: {', '.join(known)}.")


def _about_folder(folder: Path, made: Draft, images: Sequence[RegImage]) -> Iterator[Problem]:
    where = printable(folder)
    if folder.exists() and not folder.is_dir():
        yield Problem("error", where, "is a file.", "Choose a folder for the regularization images.")
        return
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if free < made.bytes:
        text = f"{free / 1e9:.2f} GB are free and about {made.bytes / 1e9:.2f} GB are needed."
        yield Problem("error", where, text, "Free some space, or choose a folder on another drive.")
    edited = [
        each for each in made.standing
        if each.state == "made" and each.written is not None and each.written != each.image.caption
    ]  # fmt: skip
    if edited:
        text = f"{len(edited)} captions beside unchanged images were edited and stay so, e.g. {edited[0].image.name}."
        yield Problem("note", where, text)
    own = [each for each in made.standing if each.state == "own"]
    if own:
        text = f"{len(own)} images were not made here, or were edited, and stay as they are, e.g. {own[0].image.name}."
        yield Problem("note", where, text)
    left = reg_folder.strangers(folder, images) if folder.is_dir() else ()
    if left:
        text = f"{len(left)} images belong to no training picture any more, e.g. {printable(left[0].name)}."
        yield Problem("warning", where, text, "Exclude or remove them, or bring their pictures back.")
