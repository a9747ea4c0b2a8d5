"""The values of trigger pruning: captions as tags, what is trained, and what is proposed about each tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.captions.lexicon import key
from lib_lora_trainer.captions.tags import join, split

Kind = Literal["character", "outfit", "pose", "object", "style", "background"]
KINDS: tuple[Kind, ...] = ("character", "outfit", "pose", "object", "style", "background")
Rigidity = Literal["triggerless", "fluid", "static", "semi-static", "multi-trigger"]
RIGIDITIES: tuple[Rigidity, ...] = ("triggerless", "fluid", "static", "semi-static", "multi-trigger")
"""Levels 0 to 4 of G3: no trigger; all tags and a trigger; every intrinsic tag goes; chosen ones go; several triggers."""

Verdict = Literal["swallow", "remove", "keep"]


@dataclass(frozen=True)
class Line:
    """One line of a caption: tags that stay first, free ones, and those that stay last, as separators part them."""

    tags: tuple[str, ...]
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    @property
    def everything(self) -> tuple[str, ...]:
        """All tags in order."""
        return (*self.first, *self.tags, *self.last)


@dataclass(frozen=True)
class ImageTags:
    """One picture and its caption. image: its name, unique within the dataset; of several lines each is a choice."""

    image: str
    lines: tuple[Line, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags of all lines, each once, as they are spelled."""
        return tuple(dict.fromkeys(tag for line in self.lines for tag in line.everything))

    @property
    def keys(self) -> frozenset[str]:
        """All tags as they are compared."""
        return frozenset(key(tag) for tag in self.tags)


@dataclass(frozen=True)
class Trigger:
    """A word and what it stands for. more: groups, families or tags that it swallows besides those of its kind."""

    word: str
    kind: Kind
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What a folder is about. triggers: in the order in which they are written; none when triggerless.

    kept: groups, families or tags that stay in the captions, so that they can be prompted.
    """

    triggers: tuple[Trigger, ...]
    rigidity: Rigidity = "static"
    kept: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The triggers' words as captions have them."""
        return () if self.rigidity == "triggerless" else tuple(trigger.word for trigger in self.triggers)


@dataclass(frozen=True)
class TagProposal:
    """What is proposed about one tag of a folder.

    tag: as it is spelled most often; group: of the lexicon, "" when unknown. verdict: the trigger swallows it, it is
    removed because it says nothing or something wrong, or it is kept. on: whether it leaves the captions; a switch.
    trigger: which one swallows it. images: that have it, of `total`; score: mean of the tagger's, None without any.
    """

    folder: str
    tag: str
    group: str
    verdict: Verdict
    on: bool
    trigger: str
    images: int
    total: int
    score: float | None
    reason: str
    example: str


@dataclass(frozen=True)
class FolderPlan:
    """What is proposed for one folder, those that leave first, then by frequency; problems: of triggers and captions."""

    folder: str
    trained: Trained
    proposals: tuple[TagProposal, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def leaving(self) -> frozenset[str]:
        """The tags that leave the captions, as they are compared."""
        return frozenset(key(proposal.tag) for proposal in self.proposals if proposal.on)


@dataclass(frozen=True)
class CaptionValues:
    """Settings that fit the new captions: `data.caption.keep_tokens` and `data.caption.separator`.

    written: whether the captions have the separator, because folders differ in how many triggers they have.
    """

    keep_tokens: int
    separator: str
    written: bool

    def settings(self) -> Mapping[str, int | str]:
        """Return the values by the settings' names."""
        return {"data.caption.keep_tokens": self.keep_tokens, "data.caption.separator": self.separator}


def parse(image: str, caption: str, separator: str) -> ImageTags:
    """Return a caption as tags. separator: as in the settings; "" when there is none. Empty lines do not count."""
    return ImageTags(image, tuple(_line(text, separator) for text in caption.splitlines() if text.strip()))


def _line(text: str, separator: str) -> Line:
    if not separator or separator not in text:
        return Line(split(text))
    first, free, *last = text.split(separator)
    return Line(split(free), split(first), tuple(tag for part in last for tag in split(part)))


def text_of(tags: ImageTags, separator: str) -> str:
    """Return the caption; tags that stay first or last are set apart by the separator."""
    return "\n".join(_text(line, separator) for line in tags.lines)


def _text(line: Line, separator: str) -> str:
    parts = [join(line.first), join(line.tags), join(line.last)] if line.last else [join(line.first), join(line.tags)]
    return f" {separator} ".join(parts).strip() if line.first or line.last else join(line.tags)
