"""What each edit of captions can be told: one definition of every option, read by the command line and the tab."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting

PLACES = ("first", "last", "index")
WAYS = ("exact", "wildcard", "regex")


@dataclass(frozen=True)
class AddOptions:
    """Tags to add."""

    tags: str = setting("", "The tags to add, separated by commas.", label="Tags")
    place: str = setting(
        "first", "Where they go: first, as a trigger does; last; or so that the first of them gets the position below.",
        label="Place", choices=PLACES,
    )  # fmt: skip
    position: int = setting(1, "The position in the caption, counted from 1.", label="Position", minimum=1)
    move: bool = setting(False, "Move tags that a caption already has to that place.", label="Move existing ones")


@dataclass(frozen=True)
class RemoveOptions:
    """Tags to remove."""

    find: str = setting(
        "", "The tags to remove: a name, a pattern with * and ?, or a regular expression.", label="Find"
    )
    how: str = setting("exact", "How the text is compared with each tag.", label="Compare", choices=WAYS)


@dataclass(frozen=True)
class ReplaceOptions:
    """Tags to replace."""

    find: str = setting("", "What to replace: a name, a pattern with * and ?, or a regular expression.", label="Find")
    replacement: str = setting(
        "", r"What takes its place; empty removes it. \1 is the first group of a regular expression.",
        label="Replacement",
    )  # fmt: skip
    how: str = setting("exact", "How the text is compared.", label="Compare", choices=WAYS)
    within: str = setting(
        "tag", "Look at each tag by itself, or at the text of the whole caption, sentences included.",
        label="Within", choices=("tag", "caption"),
    )  # fmt: skip


@dataclass(frozen=True)
class RenameOptions:
    """A tag to rename everywhere, whatever its spelling, also within sentences."""

    old: str = setting("", "The tag's present name.", label="Old name")
    new: str = setting("", "Its new name.", label="New name")


@dataclass(frozen=True)
class MoveOptions:
    """Tags to move."""

    find: str = setting("", "The tags to move: a name, a pattern with * and ?, or a regular expression.", label="Find")
    how: str = setting("exact", "How the text is compared with each tag.", label="Compare", choices=WAYS)
    place: str = setting("first", "Where they go.", label="Place", choices=PLACES)
    position: int = setting(1, "The position in the caption, counted from 1.", label="Position", minimum=1)


@dataclass(frozen=True)
class SortOptions:
    """How tags are sorted."""

    by: str = setting(
        "alphabet", "By name; by how often a tag occurs or by the tagger's score, the highest first; or by what it is "
        "about, as the lexicon groups tags.",
        label="Sort by", choices=("alphabet", "frequency", "score", "group"),
    )  # fmt: skip
    reverse: bool = setting(False, "The other way round.", label="Reverse")
    keep: int = setting(0, "How many tags stay first, such as triggers.", label="Keep first", minimum=0)


@dataclass(frozen=True)
class DedupeOptions:
    """Repeated tags go; the first of each stays."""


@dataclass(frozen=True)
class CaseOptions:
    """How tags are capitalized."""

    case: str = setting("lower", "Small letters, capitals, or a capital first.", label="Letters",
                        choices=("lower", "upper", "capitalized"))  # fmt: skip


@dataclass(frozen=True)
class SpellingOptions:
    """What separates the words of a tag."""

    words: str = setting(
        "spaces", "What separates the words of a tag. Faces such as ^_^ and quality tags such as score_9 stay as they are.",
        label="Words are separated by", choices=("spaces", "underscores"),
    )  # fmt: skip


@dataclass(frozen=True)
class BracketOptions:
    """Whether brackets have backslashes."""

    brackets: str = setting(
        "unescaped", "Captions are trained with plain brackets; with emphasis on, brackets that are part of a name need "
        "backslashes.",
        label="Brackets", choices=("unescaped", "escaped"),
    )  # fmt: skip


@dataclass(frozen=True)
class AffixOptions:
    """What stands before and behind captions."""

    prefix: str = setting("", "Put before every caption exactly as it is written here.", label="Before")
    suffix: str = setting("", "Put behind every caption exactly as it is written here.", label="Behind")


@dataclass(frozen=True)
class SetOptions:
    """Another text."""

    text: str = setting("", "The whole caption.", label="Text")
