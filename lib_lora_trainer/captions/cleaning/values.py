"""The values of clean-up: what may be asked, what is proposed, and how a proposal changes a caption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_lora_trainer.base.setting import setting
from lib_lora_trainer.captions import text
from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.captions.text import Caption, key, parse

Captions = Mapping[Path, Caption]


@dataclass(frozen=True)
class CleanOptions:
    """Which rules look at the captions, and what they need to know."""

    quality: bool = setting(False, "Turn a board's scores into quality tags.", label="Quality from scores")
    dumps: bool = setting(
        True, "Clean up what was imported from a board: escaped characters, tags separated by spaces or bars, and "
        "artist:, score: or rating: entries.",
        label="Board dumps",
    )  # fmt: skip
    meta: bool = setting(True, "Remove tags that describe the file, not the picture: highres, meme.", label="Meta tags")
    characters: bool = setting(True, "Remove characters that are not the trained ones.", label="Wrong characters")
    synonyms: bool = setting(True, "Use one word for one thing: tiara for circlet.", label="Synonyms")
    typos: bool = setting(
        True, "Correct rare tags that are one letter away from a frequent one.", label="Typing errors"
    )
    redundancy: bool = setting(
        True, "Remove a tag that a more specific one contains: shirt beside white shirt.", label="Redundancy"
    )
    consolidation: bool = setting(
        True, "Join tags about one garment: white dress and turtleneck dress.", label="Consolidation"
    )
    overlap: bool = setting(
        False, "Abbreviate a tag that begins with another one, which would mix what both mean: aiming at viewer becomes "
        "aav beside aiming.",
        label="Overlapping words",
    )  # fmt: skip
    trained: tuple[str, ...] = setting((), "Names of the trained characters, which stay.", label="Trained characters")
    more_synonyms: tuple[str, ...] = setting(
        (), "More words for one thing, the one to use first: tiara = circlet = diadem.", label="More synonyms"
    )


@dataclass(frozen=True)
class CleanFacts:
    """What rules may ask besides the captions.

    characters: keys of tags that a tagger calls characters; known: keys of tags that exist, such as the tagger's;
    board_scores: votes for a picture on its board, by caption file.
    """

    characters: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    board_scores: Mapping[Path, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What a rule looks at: captions by file as the rules before it leave them, the options, and the facts."""

    captions: Captions
    options: CleanOptions
    facts: CleanFacts


@dataclass(frozen=True)
class Rewrite:
    """A change of one line: where all of `remove` (keys) are, they go, and `put` stands in the place of the first.

    needs: keys that must be there as well, and stay. Without `remove`, `put` goes to the end of the first line.
    """

    remove: frozenset[str]
    put: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CleanProposal:
    """What a rule would do. what: in a few words; why: the reason; on: its switch; rewrites: by caption file."""

    rule: str
    what: str
    why: str
    rewrites: Mapping[Path, tuple[Rewrite, ...]]
    on: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """The caption files that change."""
        return tuple(self.rewrites)


def rewritten(caption: Caption, rewrite: Rewrite) -> Caption:
    """Return a caption after a rewrite; the same one where it does not apply. Sentences stay as they are."""
    if not rewrite.remove:
        return _ending(caption, rewrite)
    for number in reversed(range(len(caption.lines()))):
        line = caption.lines()[number]
        tags = {index: caption.items[index].key for index in line if not caption.items[index].prose}
        have = set(tags.values())
        if not (rewrite.remove | rewrite.needs) <= have:
            continue
        leaving = [index for index, each in tags.items() if each in rewrite.remove]
        stays = have - rewrite.remove
        put = [tag for tag in rewrite.put if key(tag) not in stays]
        texts = dict.fromkeys(leaving, "") | ({leaving[0]: join(put)} if put else {})
        caption = parse(text.changed(caption, texts).text, caption.marks)
    return caption


def _ending(caption: Caption, rewrite: Rewrite) -> Caption:
    lines = caption.lines()
    place = lines[0].stop - 1 if lines else 0
    for tag in rewrite.put:
        if key(tag) not in caption.keys:
            caption = text.after(caption, place, tag) if caption.items else text.before(caption, 0, tag)
            place += bool(lines)
    return caption


def applied(captions: Captions, proposals: Iterable[CleanProposal]) -> dict[Path, Caption]:
    """Return all captions after the proposals that are on, in their order."""
    done = dict(captions)
    for proposal in proposals:
        for path, rewrites in proposal.rewrites.items() if proposal.on else ():
            for rewrite in rewrites if path in done else ():
                done[path] = rewritten(done[path], rewrite)
    return done


def spelled(tag: str, like: Iterable[str]) -> str:
    """Return a new tag with underscores for spaces where the tags it is made of have them."""
    words = list(like)
    return tag.replace(" ", "_") if any("_" in word for word in words) else tag


def words_of(setting_text: str) -> tuple[str, ...]:
    """Return the names in a setting's text, separated by commas or equals signs."""
    return split(setting_text.replace("=", ","))
