"""What the step's buttons start: each yields events, and at last what was made."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_lora_trainer.app import caption_jobs, prune_jobs, tag_jobs
from lib_lora_trainer.app.caption_jobs import Loaded, Selection
from lib_lora_trainer.app.dataset_tools import Draft, Request, recover
from lib_lora_trainer.app.prune_jobs import Proposed, PruneRequest
from lib_lora_trainer.app.threaded import Stopped, reported
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.base.events import Event, Finished, Note, Phase
from lib_lora_trainer.captions import outfit, prune, triggers
from lib_lora_trainer.captions.cleaning.values import CleanFacts
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.ui import captions_cleaning, captions_edits, captions_prune_form, captions_tagging
from lib_lora_trainer.ui.captions_form import SELECTED
from lib_lora_trainer.ui.captions_words import Vocabulary
from lib_lora_trainer.ui.captions_work import Made, Maker
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session
from lib_lora_trainer.ui.tools_jobs import index_of, selected

EXAMPLE = 128  # pixels of the longer side of an example picture


@dataclass(frozen=True)
class Pruning:
    """What is proposed, and what was asked, so that the captions can be read again."""

    request: Request
    made: Proposed


@dataclass(frozen=True)
class Shown:
    """What is shown of pruning: HTML, and what it is made of where that can be previewed."""

    html: str
    proposed: Pruning | None = None


def request(session: Session, folder: str | None, on: str, selection: str, options: Any = None) -> Request:
    """Return what work is about. Raises ConfigError when the folder is not there or nothing is selected."""
    data, triggers = session.config.data, session.config.triggers
    made = Request(data, index=index_of(session, folder), triggers=triggers)
    made = made if options is None else replace(made, options=options)
    return replace(made, only=selected(selection)) if on == SELECTED else made


def tagging(home: tag_jobs.Place) -> Maker:
    """Return the work that has taggers look at pictures and drafts their captions."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        folder, on, selection, names, own, *options = entered
        wish = captions_tagging.chosen(names, own, options)
        yield from _drafted(tag_jobs.draft(request(session, folder, on, selection, wish), home, control))

    return make


def downloading(home: tag_jobs.Place) -> Maker:
    """Return the work that gets the taggers which are not on this machine."""

    def make(_: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        for model in captions_tagging.absent(captions_tagging.wanted(*entered), home):
            for event in tag_jobs.download(model.name, home, control):
                yield event
                if isinstance(event, Finished) and event.reason != "done":
                    return
            yield Note("note", f"{model.name} is on this machine now.")

    return make


def proposing(place: Place) -> Maker:
    """Return the work that proposes what the triggers of each folder should swallow."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        folder, on, selection, scores, wishes, _ = entered
        wish = PruneRequest(
            request(session, folder, on, selection), captions_prune_form.trained(wishes), use_scores=bool(scores)
        )
        for event in prune_jobs.propose(wish, control):
            if isinstance(event, Proposed):
                pictures = yield from _examples(event, place.projects / session.project)
                yield Made(
                    other=Shown(captions_prune_form.proposals_html(event, pictures), Pruning(wish.request, event))
                )
            else:
                yield event

    return make


def _examples(made: Proposed, project: Path) -> Any:
    """Make the example pictures; yields how far it is, and returns their addresses by name."""
    by_name = {each.tags.image: each.picture for found in made.captions.folders.values() for each in found}
    names = list(
        dict.fromkeys(each.example for plan in made.plans for each in plan.proposals if each.example in by_name)
    )
    addresses: dict[str, str] = {}
    found = thumbnails([by_name[name] for name in names], project / "cache" / "thumbnails", EXAMPLE)
    for done, (name, small) in enumerate(zip(names, found, strict=True), start=1):
        if not isinstance(small, DataError):
            addresses[name] = address(small, project)
        yield Phase("making previews", done, len(names))
    return addresses


def checking(session: Session, entered: Sequence[Any], _: Control) -> Iterator[Any]:
    """Say how the triggers of all folders relate in the captions as they are, what speaks against each as a word, and
    what the outfits could be called.
    """
    folder, on, selection, _scores, wishes, _switches = entered
    trained = captions_prune_form.trained(wishes)
    words = list(dict.fromkeys(word for each in trained.values() for word in each.words))
    captions = prune_jobs.read(request(session, folder, on, selection))
    outfits = [name for name, each in trained.items() if any(one.kind == "outfit" for one in each.triggers)]
    names = {
        name: outfit.outfit_trigger(prune_jobs.counts(captions, name)) for name in outfits if name in captions.folders
    }
    if not words:
        raise ConfigError("triggers: there is none. Write some beside the folders.")
    advice = [each for word in words for each in triggers.advice(word, words)]
    told = captions_prune_form.words_html(advice, names)
    yield Made(other=Shown(told + captions_prune_form.venn_html(prune_jobs.check(captions, words))))


def triggering(session: Session, entered: Sequence[Any], _: Control) -> Iterator[Any]:
    """Draft the captions with the triggers of their folders first, and all their tags."""
    folder, on, selection, _scores, wishes, _switches = entered
    words = {name: each.words for name, each in captions_prune_form.trained(wishes).items()}
    captions = prune_jobs.read(request(session, folder, on, selection))
    yield Made(
        prune_jobs.draft_triggers(captions, {name: own for name, own in words.items() if name in captions.folders})
    )


def pruning(_session: Session, entered: Sequence[Any], _: Control) -> Iterator[Any]:
    """Draft the captions after pruning, with the switches, and the captions, as they are now."""
    proposed, _wishes, switches = entered
    if not isinstance(proposed, Pruning):
        raise ConfigError("proposals: there are none. Press Propose first.")
    touched: Mapping[str, Mapping[str, bool]] = captions_prune_form.switches(switches)
    plans = [prune.switched(plan, touched.get(plan.folder, {})) for plan in proposed.made.plans]
    made = prune_jobs.proposed(prune_jobs.read(proposed.request), plans)
    yield Made(prune_jobs.draft_prune(made), captions_prune_form.settings(made))


def editing(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
    """Draft an edit of many captions."""
    folder, on, selection, kind, *options = entered
    asked = request(session, folder, on, selection)
    chosen = captions_edits.chosen(captions_edits.titled(kind), options)
    loaded = yield from _loaded(asked, control)
    if loaded is not None:
        meant = Selection(asked.only, scores=caption_jobs.scores_of(loaded.root))
        yield Made(caption_jobs.draft(chosen, loaded, meant))


def cleaning(vocabulary: Vocabulary) -> Maker:
    """Return the work that proposes what the clean-up rules would do."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        folder, on, selection, _switches, *options = entered
        asked = request(session, folder, on, selection)
        chosen = captions_cleaning.chosen(options)
        loaded = yield from _loaded(asked, control)
        if loaded is not None:
            meant, (characters, known) = Selection(asked.only), vocabulary.keys()
            found = caption_jobs.clean(chosen, loaded, meant, CleanFacts(characters, known))
            yield Made(other=captions_cleaning.Cleaning(session.project, loaded, meant, found))

    return make


def cleaned(_session: Session, entered: Sequence[Any], _: Control) -> Iterator[Any]:
    """Draft the captions after the proposals of the clean-up that are on."""
    proposed, switches = entered
    if not isinstance(proposed, captions_cleaning.Cleaning):
        raise ConfigError("proposals: there are none. Press Propose first.")
    found = captions_cleaning.switched(proposed.proposals, switches)
    yield Made(caption_jobs.draft_clean(found, proposed.loaded, proposed.selection))


def _loaded(asked: Request, control: Control) -> Generator[Event, None, Loaded | None]:
    """Read all captions of a source; yields how far it is, and returns None when stopped, after Finished."""
    yield from recover(Path(asked.data.sources[asked.index].path))
    try:
        loaded = yield from reported(functools.partial(caption_jobs.load, asked.data, asked.index), control, "captions")
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return None
    yield from (Note(problem.severity, str(problem)) for problem in loaded.problems[:3])
    return loaded


def _drafted(events: Iterator[Any]) -> Iterator[Any]:
    for event in events:
        yield Made(event) if isinstance(event, Draft) else event
