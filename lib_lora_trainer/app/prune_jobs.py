"""Trigger pruning of a dataset's captions: read them, propose, and say what the journal would write.

`propose` ends with a `Proposed`; with the user's switches `draft_prune` makes a Draft of it, which `dataset_tools.apply`
writes and `dataset_tools.undo` takes back. Nothing else here changes a file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lib_lora_trainer.app.dataset_tools import Draft, Request, gathered, recover
from lib_lora_trainer.app.tag_jobs import kept_scores
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Phase
from lib_lora_trainer.captions import prune, triggers, venn
from lib_lora_trainer.captions.prune_facts import Scores
from lib_lora_trainer.captions.prune_values import CaptionValues, FolderPlan, ImageTags, Trained, parse, text_of
from lib_lora_trainer.captions.venn import Venn
from lib_lora_trainer.dataset.caption_files import UNICODE_ENCODINGS, find_caption, read_caption
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.members import Dataset
from lib_lora_trainer.dataset.tools.operations import Proposal, replace, shown, write


@dataclass(frozen=True)
class Caption:
    """The caption of one picture. file: where it stands, or would be written; text: as training reads it.

    problem: why it cannot be read, or was read as a guess.
    """

    picture: Path
    file: Path
    exists: bool
    text: str
    tags: ImageTags
    problem: Problem | None = None

    @property
    def usable(self) -> bool:
        """Whether the text could be read."""
        return self.problem is None or self.problem.severity != "error"


@dataclass(frozen=True)
class Captions:
    """The captions of one source by folder, as shown from the dataset's own on; "." is that one itself."""

    dataset: Dataset
    folders: Mapping[str, tuple[Caption, ...]]

    @property
    def separator(self) -> str:
        """What sets kept tags apart, as in the settings."""
        return self.dataset.data.caption.separator

    def tags(self, folder: str) -> tuple[ImageTags, ...]:
        """Return the captions of a folder as tags, those that cannot be read left out."""
        return tuple(each.tags for each in self.folders[folder] if each.usable)

    @property
    def usable(self) -> tuple[Caption, ...]:
        """The captions of all folders that could be read."""
        return tuple(each for found in self.folders.values() for each in found if each.usable)

    @property
    def everything(self) -> tuple[ImageTags, ...]:
        """The captions of all folders as tags."""
        return tuple(each.tags for each in self.usable)


@dataclass(frozen=True)
class PruneRequest:
    """What is pruned. trained: folder to what is trained on it; "*" for all that are not named.

    Folders that are not named, where there is no "*", stay as they are. use_scores: what taggers said counts as well.
    """

    request: Request
    trained: Mapping[str, Trained] = field(default_factory=dict)
    use_scores: bool = True


@dataclass(frozen=True)
class Proposed:
    """What is proposed for each folder, with the settings that fit, and what the triggers would then mean."""

    captions: Captions
    plans: tuple[FolderPlan, ...]
    values: CaptionValues
    venn: Venn

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems of the folders, each once."""
        return tuple(dict.fromkeys(problem for plan in self.plans for problem in plan.problems))


def read(request: Request) -> Captions:
    """Return the captions of a source. Raises as `dataset_tools.gathered`."""
    dataset = gathered(request)
    folders: dict[str, list[Caption]] = {}
    for member in dataset.members:
        folders.setdefault(shown(member.path.parent, dataset.root), []).append(_caption(member.path, dataset))
    return Captions(dataset, {name: tuple(found) for name, found in sorted(folders.items())})


def propose(wish: PruneRequest, control: Control) -> Iterator[Event | Proposed]:
    """Read captions, and scores if there are any, and propose; the last value is Proposed, or Finished when stopped.

    Raises ConfigError for a folder that is none, DataError when there is no picture.
    """
    yield from recover(Path(wish.request.data.sources[wish.request.index].path))
    found = read(wish.request)
    unknown = [name for name in wish.trained if name != "*" and name not in found.folders]
    if unknown:
        raise ConfigError(f"{unknown[0]}: has no pictures. Folders with pictures: {', '.join(found.folders)}.")
    chosen = {name: wish.trained.get(name) or wish.trained.get("*") for name in found.folders}
    plans = []
    for done, (name, trained) in enumerate(chosen.items(), start=1):
        if trained is not None:
            scores = scores_of(found, name) if wish.use_scores else None
            plans.append(prune.propose(name, found.tags(name), trained, scores))
        yield Phase("reading captions", done, len(chosen))
        if control.wish != "go":
            yield Finished("stopped", 0, (), 0.0)
            return
    yield proposed(found, plans)


def proposed(captions: Captions, plans: Sequence[FolderPlan]) -> Proposed:
    """Return plans, as they came or with the user's switches, with the settings and meanings that follow from them."""
    values = prune.caption_values(plans, captions.separator)
    words = dict.fromkeys(word for plan in plans for word in plan.trained.words)
    after = dict(_after(captions, plans, values))
    everything = tuple(after.get(tags.image, tags) for tags in captions.everything)
    return Proposed(captions, tuple(plans), values, venn.check(words, everything, captions.everything))


def scores_of(captions: Captions, folder: str) -> Scores:
    """Return what taggers said about a folder's pictures; of several taggers the highest score."""
    kept = kept_scores(captions.dataset.root)
    found: dict[str, dict[str, float]] = {}
    if not kept.kept:
        return found
    for caption in captions.folders[folder]:
        about = found.setdefault(caption.tags.image, {})
        for scored in kept.of(caption.picture):
            for name, score in (*scored.general.items(), *scored.character.items()):
                about[name] = max(score, about.get(name, 0.0))
    return found


def draft_prune(made: Proposed) -> Draft:
    """Return what applying all plans would write. Raises ProblemsFound for their errors."""
    errors = tuple(problem for problem in made.problems if problem.severity == "error")
    if errors:
        raise ProblemsFound(errors)
    after = dict(_after(made.captions, made.plans, made.values))
    return _draft("prune", "Pruned captions", made.captions, after, made.values.separator)


def draft_triggers(captions: Captions, words: Mapping[str, Sequence[str]]) -> Draft:
    """Return what putting triggers first in the captions of folders would write; words: folder to its triggers.

    Raises ProblemsFound for words that can be no triggers.
    """
    given = [word for chosen in words.values() for word in chosen]
    problems = tuple(dict.fromkeys(each for word in given for each in triggers.errors(word)))
    if problems:
        raise ProblemsFound(problems)
    separated = len({len(chosen) for chosen in words.values()}) > 1
    after = {
        tags.image: triggers.inserted(tags, chosen, separated=separated)
        for name, chosen in words.items()
        for tags in captions.tags(name)
    }
    return _draft("triggers", "Triggers", captions, after, captions.separator or "|||")


def counts(captions: Captions, folder: str) -> Counter[str]:
    """Return how many captions of a folder have each tag, as it is spelled; for `outfit.outfit_trigger`."""
    return Counter(tag for tags in captions.tags(folder) for tag in tags.tags)


def check(captions: Captions, words: Sequence[str]) -> Venn:
    """Return how triggers relate in the captions as they are."""
    return venn.check(words, captions.everything)


def settled_by(misc: Captions, captions: Captions, words: Sequence[str]) -> tuple[Problem, ...]:
    """Return the findings of `check` that another folder's pictures, with their captions as they are, would settle."""
    more = tuple(ImageTags(str(each.picture), each.tags.lines) for each in misc.usable)
    return venn.settled_by(more, words, captions.everything, captions.everything)


def _after(captions: Captions, plans: Sequence[FolderPlan], values: CaptionValues) -> Iterator[tuple[str, ImageTags]]:
    for plan in plans:
        for tags in prune.pruned(plan, captions.tags(plan.folder), values):
            yield tags.image, tags


def _caption(picture: Path, dataset: Dataset) -> Caption:
    image = shown(picture, dataset.root)
    config = dataset.data.caption
    file = find_caption(picture, dataset.extensions)
    if file is None:
        target = picture.with_suffix(dataset.extensions[0] if dataset.extensions else ".txt")
        return Caption(picture, target, False, "", ImageTags(image, ()))
    try:
        # As training reads it: lines are kept apart only where each is a caption of its own.
        text, encoding = read_caption(file, "\n" if config.wildcards else " ")
    except DataError as error:
        return Caption(picture, file, True, "", ImageTags(image, ()), Problem("error", image, str(error)))
    problem = None
    if encoding not in UNICODE_ENCODINGS:
        message = f"has a caption that was read as {encoding}, and is written as UTF-8."
        problem = Problem("warning", image, message, "Look whether its letters are right.")
    return Caption(picture, file, True, text, parse(image, text, config.separator), problem)


def _draft(tool: str, title: str, captions: Captions, after: Mapping[str, ImageTags], separator: str) -> Draft:
    proposals = []
    written: set[str] = set()
    for caption in (caption for found in captions.folders.values() for caption in found):
        made = after.get(caption.tags.image)
        if caption.problem is not None and not caption.usable:
            proposals.append(Proposal(caption.picture, problems=(caption.problem,)))
        elif made is not None:
            # One in which nothing changes stays as it was written, byte for byte.
            text = caption.text if made == caption.tags else text_of(made, separator)
            proposals.append(_proposal(caption, text, written))
    changed = sum(bool(each.operations) for each in proposals)
    return Draft(tool, f"{title}: {changed} of {len(proposals)}", captions.dataset.root, tuple(proposals))


def _proposal(caption: Caption, text: str, written: set[str]) -> Proposal:
    """Return what writing one caption would do; a file that several pictures share is written once."""
    before, after = {"caption": caption.text}, {"caption": text}
    shared = os.path.normcase(caption.file) in written
    written.add(os.path.normcase(caption.file))
    if shared:
        message = f"shares the caption {printable(caption.file)} with another picture."
        problem = Problem("warning", caption.tags.image, message, "Rename one of the two pictures.")
        return Proposal(caption.picture, before=before, after=after, problems=(problem,))
    if text == caption.text:
        return Proposal(caption.picture, before=before, after=after)
    content = partial(_fill, text)
    operation = replace(caption.file, content) if caption.exists else write(caption.file, content)
    return Proposal(caption.picture, (operation,), before, after, (caption.problem,) if caption.problem else ())


def _fill(text: str, path: Path) -> None:
    path.write_bytes(text.encode("utf-8"))
