"""What the panel's buttons start: each a generator that looks, or changes, and makes what the page then shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_lora_trainer.app import dataset_tools, duplicate_jobs, masking
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.app.relay import relay
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, RunConflict
from lib_lora_trainer.base.events import Finished, Note, Phase
from lib_lora_trainer.dataset.duplicates import Found
from lib_lora_trainer.dataset.entries import absolute
from lib_lora_trainer.dataset.tools import kept
from lib_lora_trainer.dataset.tools.bucket_report import BucketReport
from lib_lora_trainer.ui import findings, tools_catalog, tools_crops, tools_duplicates, tools_show
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_catalog import OFFERS, OWN_LANCZOS
from lib_lora_trainer.ui.tools_form import SELECTED, Previewed


@dataclass(frozen=True)
class Wish:
    """What was entered. entered: every option's value, as `ToolsTab.entered`; selection: JSON list of paths."""

    tool: str
    folder: str | None
    on: str
    selection: str
    upscaler: str
    entered: tuple[Any, ...]


@dataclass(frozen=True)
class Leaf:
    """One page of a preview, ready to be shown. pages: how many there are."""

    held: Previewed
    html: str
    pages: int


def request(place: Place, session: Session, wish: Wish) -> Request:
    """Return what a tool is asked. Raises ConfigError for what is entered wrongly, RunConflict while training goes on."""
    options = tools_catalog.chosen(wish.tool, _own(wish), _more(place, session, wish))
    data, triggers = session.config.data, session.config.triggers
    made = Request(data, options, index_of(session, wish.folder), triggers)
    return replace(made, only=selected(wish.selection)) if wish.on == SELECTED else made


def folders(session: Session) -> list[str]:
    """Return the folders as the list shows them, in the settings' order."""
    return [f"{number}: {source.path}" for number, source in enumerate(session.config.data.sources, start=1)]


def index_of(session: Session, folder: str | None) -> int:
    """Return the number of the chosen folder, of the first if none is. Raises ConfigError when it is not there."""
    known, sources = folders(session), session.config.data.sources
    if folder and folder not in known:
        raise ConfigError(f"folder: {folder} is no folder of the project now. Choose one in the list.")
    number = known.index(folder) if folder else 0
    if not known or not sources[number].path.strip():
        raise ConfigError("folder: none is chosen. Name the folder with your pictures above, then choose it here.")
    return number


def root_of(session: Session, folder: str | None) -> Path:
    """Return the chosen folder. Raises ConfigError when there is none."""
    return absolute(session.config.data.sources[index_of(session, folder)].path)


def selected(text: str) -> tuple[Path, ...]:
    """Return the selected pictures. Raises ConfigError when there are none."""
    try:
        paths = json.loads(text) if text.strip() else []
    except ValueError as error:
        raise ConfigError("selection: what the page sent is no list. Select the pictures again.") from error
    if not isinstance(paths, list) or not paths:
        raise ConfigError("selection: no picture is selected. Select some in the gallery, or choose all pictures.")
    return tuple(absolute(str(path)) for path in paths)


def preview(place: Place, session: Session, wish: Wish, control: Control) -> Iterator[Any]:
    """Look what a tool would do; the last value is the first Leaf, or Finished when stopped."""
    asked = request(place, session, wish)
    root = root_of(session, wish.folder)
    fetched = [each for each in place.host.upscalers() if each.name == wish.upscaler and each.download]
    if wish.tool == "upscale" and fetched:
        yield Note(
            "warning", f"{fetched[0].name}: when you apply, the WebUI fetches its model from {fetched[0].download}."
        )
    if wish.tool == "mask-generate":
        yield Phase(f"loading {asked.options.model}, up to a minute for the first time", 0, 1)
        made = masking.remover(asked.options.model, _folder(place, session, "masks"))
        asked = replace(asked, options=replace(asked.options, remover=made))
    if wish.tool == "duplicates":
        looking: Iterator[Any] = duplicate_jobs.look(asked, control)
    elif wish.tool == "buckets":
        looking = dataset_tools.buckets(asked, control)
    else:
        looking = dataset_tools.draft(wish.tool, asked, control)
    for event in looking:
        if isinstance(event, (Draft, Found, BucketReport)):
            yield from leaf(Previewed(session.project, wish.tool, root, asked, event, 0))
        else:
            yield event


def leaf(held: Previewed) -> Iterator[Any]:
    """Make the page that a preview is on; the last value is the Leaf."""
    found, root = held.found, held.root
    assert root is not None and held.request is not None
    if isinstance(found, Draft):
        number = _within(held.page, len(tools_show.relevant(found)), tools_show.PAGE)
        resolution = getattr(held.request.options, "resolution", 0)
        making: Iterator[Any] = tools_show.page(found, number[0], resolution)
        head = tools_show.counts(found) + tools_show.told(found.problems)
    elif isinstance(found, Found):
        number = _within(held.page, len(found.clusters), tools_duplicates.PAGE)
        making = tools_duplicates.page(found, root, number[0])
        head = tools_duplicates.counts(found) + tools_show.told(found.problems)
    else:
        assert isinstance(found, BucketReport)
        number = _within(held.page, len(found.placed), tools_show.PAGE)
        making = tools_show.placed_page(found, root, number[0])
        head = tools_show.report(found, root)
    html = (yield from relay(making, str)) or ""
    nothing = "No picture needs this tool."
    if held.tool == "mask":
        nothing = "None of the masks is a bad one."
    empty = findings.empty("Nothing to change", nothing)
    yield Leaf(replace(held, page=number[0]), head + (html or empty), number[1])


def apply(place: Place, session: Session, held: Previewed, adjusted: str, control: Control) -> Iterator[Any]:
    """Do what a preview shows, with what was changed in it. Raises ConfigError when there is none of this project."""
    if held.found is None or held.request is None or held.project != session.project:
        raise ConfigError("preview: there is none. Press Preview first, then apply it.")
    found = held.found
    if isinstance(found, BucketReport):
        raise ConfigError("report: it changes nothing, so there is nothing to apply.")
    if isinstance(found, Found):
        made = duplicate_jobs.draft(held.request, tools_duplicates.rejected(adjusted, found))
    elif held.tool == "crop" and (windows := tools_crops.adjusted(adjusted, found)):
        options = replace(held.request.options, windows=windows)
        *_, drafted = dataset_tools.draft("crop", replace(held.request, options=options), control)
        if not isinstance(drafted, Draft):
            yield drafted
            return
        errors = [problem for problem in drafted.problems if problem.severity == "error"]
        if errors:
            raise DataError(str(errors[0]))
        made = drafted
    else:
        made = found
    if not made.operations:
        yield Note("note", "Nothing has to be changed.")
        yield Finished("done", 0, (), 0.0)
        return
    yield from dataset_tools.apply(made, control)
    yield Note("note", f"{made.text}. Undo takes it back.")
    for name in ("upscaled", "masks"):  # a stopped one is kept, so that it goes on where it was
        if held.tool == {"upscaled": "upscale", "masks": "mask-generate"}[name] and control.wish == "go":
            kept.drop(_folder(place, session, name))


def _own(wish: Wish) -> tuple[Any, ...]:
    """Return the values of the chosen tool's options among all that were sent."""
    tools_catalog.offer(wish.tool)
    start = 0
    for offer in OFFERS:
        count = len(tools_catalog.option_fields(offer.name))
        if offer.name == wish.tool:
            return wish.entered[start : start + count]
        start += count
    return ()


def _more(place: Place, session: Session, wish: Wish) -> dict[str, Any]:
    """Return the upscaler, as the options of its tool take it."""
    if wish.tool != "upscale" or wish.upscaler in (OWN_LANCZOS, "", None):
        return {}
    found = next((each for each in place.host.upscalers() if each.name == wish.upscaler), None)
    if found is None:
        raise ConfigError(f"upscaler: {wish.upscaler!r} is not in the WebUI's list. Choose one of the list.")
    status = place.runner.status()
    if place.searches.busy() or (status is not None and status.busy):
        raise RunConflict("A training uses the device. Wait until it has ended, or choose Lanczos.")
    upscale = kept.kept_upscaler(found.upscale, found.name, _folder(place, session, "upscaled"))
    return {"upscaler": upscale, "name": found.name}


def _folder(place: Place, session: Session, name: str) -> Path:
    return project_of(place.projects, session).cache / name


def _within(page: int, count: int, size: int) -> tuple[int, int]:
    """Return a page's number within the pages there are, and how many those are."""
    pages = max(1, -(-count // size))
    return min(max(page, 0), pages - 1), pages
