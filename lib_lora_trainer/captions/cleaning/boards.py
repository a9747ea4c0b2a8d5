"""What comes from the boards and is not in the picture: dumps, meta tags, wrong characters; and quality from scores."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lib_lora_trainer.captions.cleaning.values import Captions, CleanProposal, Look, Rewrite
from lib_lora_trainer.captions.lexicon import group_of
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.captions.text import Item, key

QUALITIES = ((60, "masterpiece"), (18, "best quality"), (6, "high quality"))
"""From how many votes on a picture has a quality (G4)."""

NAMESPACES = frozenset(
    "artist character circle copyright creator date group height id invalid lore md5 medium meta parent pixiv pool rating "  # noqa: SIM905
    "score series set source species status studio style title uploader user width".split()
)
"""What boards put before a colon; other colons belong to the tag, as in `re:zero`. `general:` is taken off its tag."""

_SCORE = re.compile(r"score\s*[:=]\s*(-?\d+)", re.IGNORECASE)
_NAMESPACED = re.compile(r"([a-z0-9]+)\s*:\s*\S", re.IGNORECASE)
_PLAIN = re.compile(r"(?:general|tag):\s*(?=\S)", re.IGNORECASE)
_FACE = re.compile(r"\W*_?\W*|\|+_\|+")


def quality(look: Look) -> Iterator[CleanProposal]:
    """Propose quality tags from votes: known ones, or a caption's own `score:12`, which goes."""
    found: dict[str, dict[Path, tuple[Rewrite, ...]]] = {}
    for path, caption in look.captions.items():
        written = {item.key: int(m[1]) for item in caption.items if (m := _SCORE.fullmatch(item.text.strip()))}
        votes = look.facts.board_scores.get(path, max(written.values(), default=None))
        name = next((name for least, name in QUALITIES if votes is not None and votes >= least), None)
        if name is not None and key(name) not in caption.keys:
            found.setdefault(name, {})[path] = (Rewrite(frozenset(written), (name,)),)
    for least, name in QUALITIES:
        if name in found:
            why = (
                f"{least} votes or more on the board are {name}; without such tags all pictures count as equally good."
            )
            yield CleanProposal("quality", f"Add {name}", why, found[name])


def unescaped(look: Look) -> Iterator[CleanProposal]:
    """Propose to write `&#039;` and the like as the characters they stand for."""
    why = "“&#039;” and the like come from a web page; the text encoder reads them as noise."
    yield from _of_items(look.captions, _unescaped, "Write escaped characters as they are", why)


def parted(look: Look) -> Iterator[CleanProposal]:
    """Propose commas where bars separate tags, or spaces while the words within tags are joined by underscores."""
    why = "They are separated by spaces or bars, so that all of them count as one tag."
    yield from _of_items(look.captions, _parted, "Separate tags by commas", why)


def entries(look: Look) -> Iterator[CleanProposal]:
    """Propose to drop a board's entries such as `artist:somebody`, and to take `general:` off its tag."""
    why = "What stands before their colon says that they name the artist, the score or the source, not what is seen."
    yield from _of_items(look.captions, _named, "Remove entries of the board", why)


def meta(look: Look) -> Iterator[CleanProposal]:
    """Propose to remove each tag that says something about the file or the board (`highres`, `meme`).

    Text, signatures and watermarks stay: they are in the picture, and a tag keeps them apart from the rest.
    """

    def is_meta(tag: str) -> bool:
        group = group_of(tag)
        return group is not None and group.name == "meta"

    why = "It describes the file, or what people think of the picture, and nothing that is seen in it."
    yield from _removals("meta", look.captions, is_meta, why, on=True)


def characters(look: Look) -> Iterator[CleanProposal]:
    """Propose to remove the names of characters that are not trained; off while nobody has said which are."""
    kept = {key(name) for setting in look.options.trained for name in split(setting)}

    def is_foreign(tag: str) -> bool:
        group = group_of(tag)
        return key(tag) not in kept and (
            key(tag) in look.facts.characters or (group is not None and group.family == "name")
        )

    why = "It names a character that is not among the trained ones; the tagger has mistaken somebody for it."
    if not kept:
        why = "It names a character. Say which characters are trained; others are mistakes of the tagger."
    yield from _removals("characters", look.captions, is_foreign, why, on=bool(kept))


def _removals(
    rule: str, captions: Captions, unwanted: Callable[[str], bool], why: str, *, on: bool
) -> Iterator[CleanProposal]:
    found: dict[str, dict[Path, tuple[Rewrite, ...]]] = {}
    names: dict[str, str] = {}
    for path, caption in captions.items():
        for tag in caption.tags:
            if unwanted(tag):
                names.setdefault(key(tag), tag)
                found.setdefault(key(tag), {})[path] = (Rewrite(frozenset({key(tag)})),)
    for each, rewrites in sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        yield CleanProposal(rule, f"Remove {names[each]}", why, rewrites, on=on)


def _of_items(
    captions: Captions, change: Callable[[str], tuple[str, ...]], what: str, why: str
) -> Iterator[CleanProposal]:
    """Yield one proposal for all captions in which some tag becomes others."""
    rewrites: dict[Path, tuple[Rewrite, ...]] = {}
    for path, caption in captions.items():
        own = tuple(
            Rewrite(frozenset({item.key}), change(item.text)) for item in caption.items if _changes(item, change)
        )
        if own:
            rewrites[path] = own
    if rewrites:
        yield CleanProposal("dumps", what, why, rewrites)


def _changes(item: Item, change: Callable[[str], tuple[str, ...]]) -> bool:
    return not item.prose and change(item.text) != (item.text,)


def _unescaped(tag: str) -> tuple[str, ...]:
    return (html.unescape(tag),) if "&" in tag else (tag,)


def _parted(tag: str) -> tuple[str, ...]:
    """Return the tags in one that bars separate, or spaces where underscores are within tags."""
    if "|" in tag and "{" not in tag and not _FACE.fullmatch(tag):
        return tuple(part.strip() for part in tag.split("|") if part.strip())
    words = tag.split()
    if len(words) >= 3 and "_" in tag:
        return tuple(words)
    return (tag,)


def _named(tag: str) -> tuple[str, ...]:
    plain = _PLAIN.match(tag)
    if plain is not None:
        return (tag[plain.end() :],)
    found = _NAMESPACED.match(tag)
    return () if found is not None and found[1].lower() in NAMESPACES else (tag,)
