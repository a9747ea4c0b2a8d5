"""What the buttons of the Reg images step start: each yields events, and at last what is then shown."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from lib_lora_trainer.app import reg_jobs, reg_project
from lib_lora_trainer.app.reg_draft import Draft, Request
from lib_lora_trainer.app.reg_folder import Standing
from lib_lora_trainer.app.relay import relay
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.events import Finished, Note, Planned, SampleMade
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.ui import reg_list, reg_options
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.reg_form import Listed
from lib_lora_trainer.ui.session import Session, project_of

Mode = Literal["ask", "all", "rest"]
"""What happens to images made from other settings: ask whether to make them anew, make them anew, leave them."""


@dataclass(frozen=True)
class Wish:
    """Who asks for what: the browser's session, and the settings as its form has them."""

    place: Place
    session: Session
    options: RegularizationConfig

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return reg_project.folder(project_of(self.place.projects, self.session))

    @property
    def request(self) -> Request:
        """What the jobs are asked."""
        config = self.session.config
        return Request(config, reg_options.of_run(self.options, config), self.folder)


@dataclass(frozen=True)
class Making:
    """An image was made. done: how many of total; seconds: until the last one, None before that can be said."""

    done: int
    total: int
    seconds: float | None
    path: Path
    caption: str


@dataclass(frozen=True)
class Asked:
    """What has to be answered before anything is made. some: whether images are missing besides."""

    html: str
    some: bool


@dataclass(frozen=True)
class Leaf:
    """One page of a list, ready to be shown. pages: how many there are."""

    listed: Listed
    html: str
    pages: int


def listing(wish: Wish, control: Control) -> Iterator[Any]:
    """List every caption with what stands of its image; the last value is a Leaf."""
    made = yield from _drafted(wish, wish.request, control)
    if made is not None:
        yield from _listed(wish, made)


def _drafted(wish: Wish, request: Request, control: Control) -> Generator[Any, None, Draft | None]:
    return (yield from relay(reg_jobs.draft(wish.place.host, request, control), Draft))


def _listed(wish: Wish, made: Draft) -> Iterator[Any]:
    project = project_of(wish.place.projects, wish.session)
    work = sum(_pixels(each) for each in made.to_make) * wish.options.steps
    seconds = reg_project.seconds_for(project, wish.place.host.info().name, work) if work else None
    yield from leaf(Listed(project.name, made, wish.options, seconds=seconds), project.folder)


def leaf(listed: Listed, project: Path) -> Iterator[Any]:
    """Make the page that a list is on; the last value is the Leaf. project: the folder that keeps thumbnails."""
    assert listed.draft is not None
    every = reg_list.rows(listed.draft, listed.which)
    pages = max(1, -(-len(every) // reg_list.PAGE))
    number = min(max(listed.page, 0), pages - 1)
    shown = every[number * reg_list.PAGE : (number + 1) * reg_list.PAGE]
    html = yield from relay(reg_list.page(shown, project, listed.options, listed.draft.numbers), str)
    yield Leaf(replace(listed, page=number), html or "", pages)


def making(wish: Wish, mode: Mode, control: Control) -> Iterator[Any]:
    """Make what is missing, and what was made from other settings as `mode` says; the last value is a Leaf or Asked."""
    request = wish.request
    made = yield from _drafted(wish, request, control)
    if made is None:
        return
    _refuse(made)
    anew = [each for each in made.to_make if each.state == "changed"]
    missing = tuple(each.image.name for each in made.to_make if each.state == "missing")
    if mode == "ask" and anew:
        yield Asked(_question(anew, len(missing)), bool(missing))
        return
    if mode == "rest" and not missing:
        yield Note("note", "Nothing is missing: every image is made.")
        yield from _listed(wish, made)
        return
    only = missing if mode == "rest" else ()
    yield from _made(wish, replace(request, only=only, found=made.found), made, control)


def _question(anew: Sequence[Standing], missing: int) -> str:
    names = reg_options.differing(name for each in anew for name in each.changed)
    counts = Counter({"made with other settings": len(anew), "missing": missing})
    told = ", ".join(f"<b>{number}</b> <span>{words}</span>" for words, number in counts.items() if number)
    return (
        f'<div class="lora-trainer-notice lora-trainer-warning" role="alert"><p>{told}</p>'
        f"<p><span>What differs:</span> {escape(names)}</p>"
        "<p>Those made anew replace the old ones, which go to the holding: Undo brings them back one by one.</p></div>"
    )


def rerolling(wish: Wish, names: Sequence[str], control: Control) -> Iterator[Any]:
    """Make the images of these names with another seed each; the last value is a Leaf."""
    request = wish.request
    before = yield from _drafted(wish, request, control)
    if before is None:
        return
    known = {each.image.name for each in before.standing}
    again = tuple(name for name in names if name in known)
    if not again:
        raise ConfigError("images: the selected ones belong to no training picture any more. Remove them instead.")
    if len(again) < len(names):
        text = f"{len(names) - len(again)} of the selected images belong to no training picture any more and stay."
        yield Note("warning", text)
    request = replace(request, reroll=again, found=before.found)
    made = yield from _drafted(wish, request, control)
    if made is not None:
        _refuse(made)
        yield from _made(wish, request, made, control)


def removing(wish: Wish, names: Sequence[str], control: Control) -> Iterator[Any]:
    """Put the images of these names into the holding."""
    extensions = wish.session.config.data.caption.extensions
    count = 0
    for event in reg_jobs.remove(wish.folder, names, extensions, control):
        count = event.step if isinstance(event, Finished) else count
        yield event
    if count:
        text = "1 image removed." if count == 1 else f"{count} images removed."
        yield Note("note", f"{text} Undo brings them back; Generate makes those of training pictures again.")


def _refuse(made: Draft) -> None:
    if made.errors:
        raise ProblemsFound(made.errors)


def _made(wish: Wish, request: Request, made: Draft, control: Control) -> Iterator[Any]:
    """Make images, telling how long the others take, and list what stands then."""
    wanted = [each for each in made.to_make if not request.only or each.image.name in request.only]
    done, started, began, planned = 0, time.monotonic(), 0.0, False
    for event in reg_jobs.generate(wish.place.host, request, control):
        now = time.monotonic() - started
        if isinstance(event, SampleMade):
            done, began = event.step, began or now  # the first one loads and compiles
            yield Making(done, len(wanted), _left(wanted, done, now - began), Path(event.path), event.prompt)
        elif isinstance(event, Note) and not (planned and event.severity == "warning"):
            continue  # the list tells the problems, and the progress what is left
        else:
            planned = planned or isinstance(event, Planned)
            yield event
    if done > 1:
        project = project_of(wish.place.projects, wish.session)
        work = sum(map(_pixels, wanted[1:done])) * wish.options.steps
        reg_project.remember_speed(project, wish.place.host.info().name, now - began, work)
    yield Note("note", _count(done, len(wanted)))
    after = yield from _drafted(wish, replace(wish.request, found=made.found), Control())
    if after is not None:
        yield from _listed(wish, after)


def _count(done: int, total: int) -> str:
    if not total:
        return "Nothing is missing: every image is made."
    return f"{done} of {total} images made." if done < total else f"{done} image{'s' if done > 1 else ''} made."


def _left(wanted: Sequence[Standing], done: int, seconds: float) -> float | None:
    """Return how long the images after the first `done` take, the time of one being proportional to its pixels."""
    timed = sum(map(_pixels, wanted[1:done]))
    return seconds * sum(map(_pixels, wanted[done:])) / timed if timed else None


def _pixels(standing: Standing) -> int:
    return standing.image.size[0] * standing.image.size[1]


def chosen(selection: str, folder: Path) -> tuple[str, ...]:
    """Return the names of the selected images that are there. Raises ConfigError when there are none."""
    try:
        names = json.loads(selection or "[]")
    except ValueError as error:
        raise ConfigError(f"selection: {selection[:80]!r} is no JSON. Reload the page.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("selection: a list of names is wanted. Reload the page.")
    found = tuple(name for name in dict.fromkeys(names) if (folder / f"{name}.png").is_file())
    if not found:
        raise ConfigError("images: none is selected. Click some in the gallery first.")
    return found
