"""Regularization images as generators of events: list the captions, say what would be made, make what is missing.

`preview` ends with the images and their captions, `draft` with a Draft; neither makes anything. The last event of
`generate` is Finished; a wish to stop or to pause is granted between two images, and the next `generate` goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from lib_lora_trainer.app import reg_folder, reg_images
from lib_lora_trainer.app.preparation import DTYPES
from lib_lora_trainer.app.reg_draft import Draft, Request, draft, preview
from lib_lora_trainer.app.reg_folder import Standing
from lib_lora_trainer.app.relay import relay
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Planned, SampleMade
from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.journal import Journal
from lib_lora_trainer.dataset.repeats import MULTIPLY_FILE
from lib_lora_trainer.dataset.tools import operations
from lib_lora_trainer.hosts.api import Host, Lease, Needs
from lib_lora_trainer.plan.plan import resolve_precision

__all__ = ["Draft", "Request", "as_source", "draft", "generate", "preview", "remove"]

_TIMED = 3  # images after which the rest is estimated: the first one loads and compiles


def generate(host: Host, request: Request, control: Control) -> Iterator[Event]:
    """Make every image that is missing or was made from other settings, on the base model without any network.

    Images are made one at a time, so that none depends on its neighbours and a run that goes on makes the same files.
    Raises ProblemsFound with all errors of the draft before anything starts, HostRefusal, RunConflict while another
    run or tool works in the folder, DataError where it cannot be written. Closing the generator ends the lease.
    """
    started = time.monotonic()
    made = yield from relay(draft(host, request, control), Draft)
    if made is None:
        return  # stopped, which was told
    if made.errors:
        raise ProblemsFound(made.errors)
    for problem in made.problems:
        yield Note(problem.severity, str(problem))
    yield Planned("regularization images", made.lines(), len(made.todo), len(made.todo), 1)
    with _writing(request.folder):
        request.folder.mkdir(parents=True, exist_ok=True)
    with Journal(request.folder) as journal:
        yield from (Note("warning", text) for text in journal.notes)
        with _writing(request.folder):
            _prepare(request.folder, made, journal)
        written: list[str] = []
        if made.to_make:
            lent = host.lease(_needs(host, request.config))
            with lent as lease, closing(_made(lease, made.to_make, journal, control)) as events:
                for event in events:
                    written += [event.path] if isinstance(event, SampleMade) else []
                    yield event
    missing = len(made.to_make) - len(written)
    if missing:
        yield Note("note", f"{missing} of {len(made.to_make)} images are still to be made. Start again to go on.")
    reason: Literal["done", "stopped", "paused"] = "done"
    if missing:
        reason = "paused" if control.wish == "pause" else "stopped"
    yield Finished(reason, len(written), tuple(written), time.monotonic() - started)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{error.filename or printable(folder)}: {error.strerror or error}."
        raise DataError(f"{text} Make room, or make the folder writable, and start again.") from error


def _prepare(folder: Path, made: Draft, journal: Journal) -> None:
    """Settle what a killed run left, and write what needs no model: captions that are gone, and how often to show."""
    reg_folder.discard_leftovers(folder)
    for each in made.standing:
        if each.state == "made" and each.written is None:
            write_text(each.caption_path, each.image.caption)
    for name, times in made.numbers.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        reg_folder.put_number(place / MULTIPLY_FILE, times, journal)


def _needs(host: Host, config: RunConfig) -> Needs:
    """Return what images ask of the host: the base model as the run trains on it."""
    precision = resolve_precision(config.training.precision, host.info())
    return Needs(compute_dtype=DTYPES[precision], fp8_base=config.training.fp8_base)


def _made(lease: Lease, todo: Sequence[Standing], journal: Journal, control: Control) -> Generator[Event, None, None]:
    """Make images one by one, and after the first ones say how long the others take."""
    began = time.monotonic()
    yield Phase("making regularization images", 0, len(todo))
    for number, standing in enumerate(todo, 1):
        if control.wish != "go":
            return
        # None when it is interrupted, here or in the WebUI.
        for image in list(lease.generate([standing.request], lambda: control.wish == "go")):
            with _writing(standing.path.parent):
                reg_folder.put(standing, image, journal)
            yield SampleMade(str(standing.path), standing.image.caption, standing.request.seed, number, 0)
        yield Phase("making regularization images", number, len(todo))
        if number == _TIMED < len(todo):
            yield Note("note", f"About {_duration(_rest(time.monotonic() - began, todo, number))} for the others.")


def _rest(seconds: float, todo: Sequence[Standing], done: int) -> float:
    """Return the seconds that the images after the first `done` take, whose time is proportional to their pixels."""
    work = [each.image.size[0] * each.image.size[1] for each in todo]
    return seconds * sum(work[done:]) / sum(work[:done])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def remove(folder: Path, names: Sequence[str], extensions: Sequence[str], control: Control) -> Iterator[Event]:
    """Put images with their captions into the folder's holding, as one entry of its journal.

    names: of images, as `RegImage.name`; those that are gone already are passed over. extensions: of caption files, as
    in the run's settings. Raises DataError for a name outside the folder or when no image is left of those named.
    """
    started, root = time.monotonic(), folder.absolute()
    ending = reg_folder.caption_extension(extensions)
    changes, count = [], 0
    for name in dict.fromkeys(names):
        picture, caption = root / f"{name}.png", root / f"{name}{ending}"
        if not picture.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{printable(name)}: is not in {printable(root)}. Name images of that folder.")
        if picture.is_file():
            count += 1
            changes += [operations.remove(path) for path in (picture, caption) if path.is_file()]
    if not count:
        raise DataError(f"{printable(root)}: none of the {len(names)} images is there any more. Choose others.")
    text = f"Removed {count} image{'s' if count > 1 else ''}"
    with Journal(root) as journal, closing(journal.record("reg", text, changes)) as recording:
        for phase in recording:
            yield phase
            if control.wish != "go":
                recording.close()
                yield Finished("stopped", 0, (), time.monotonic() - started)
                return
    yield Finished("done", count, (), time.monotonic() - started)


def as_source(folder: Path, config: RunConfig) -> SourceConfig:
    """Return the source with which a run trains on the images in a folder.

    Their captions hold prefix and suffix of the run already, so that it has none of its own; nothing is kept in place
    when tags are shuffled. Their repeats stand in each folder's multiply.txt.
    """
    resolutions = {source.resolution for source in reg_images.training_part(config.data).sources}
    return SourceConfig(
        path=str(folder),
        repeats=1,
        regularization=True,
        resolution=resolutions.pop() if len(resolutions) == 1 else None,
        keep_tokens=0,
        prefix="",
        suffix="",
    )
