"""Words for one thing, words that mix two things, and words that are misspelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from lib_lora_trainer.captions.cleaning.values import (
    Captions,
    CleanProposal,
    Look,
    Rewrite,
    spelled,
    words_of,
)
from lib_lora_trainer.captions.frequency import counts
from lib_lora_trainer.captions.lexicon import group_of
from lib_lora_trainer.captions.lexicon import words as lexicon_words
from lib_lora_trainer.captions.text import key

SYNONYMS = (
    "tiara = circlet = diadem",
    "glasses = eyeglasses = spectacles",
    "thighhighs = thigh highs = thigh-highs",
    "t-shirt = tee shirt = tshirt",
    "bikini = two-piece swimsuit",
    "trousers = slacks",
    "sneakers = trainers (footwear)",
    "greyscale = grayscale",
    "twintails = twin tails = pigtails",
    "closed eyes = eyes closed",
    "open mouth = mouth open",
    "gloves = hand gloves",
    "full body = full-body = full body shot",
    "upper body = upper-body = upper body shot",
    "cellphone = mobile phone = cell phone",
    "necktie = tie",
    "sunglasses = sun glasses",
)
"""Words that the boards' wikis and common taggers use for one thing, the boards' own first."""

FREQUENT, RARE, TIMES = 5, 2, 10
"""A typing error occurs at most twice, the tag it is meant to be five times at least and ten times as often."""


def synonyms(look: Look) -> Iterator[CleanProposal]:
    """Propose one word for each thing: the first of the user's own list; else the dataset's most frequent."""
    frequency = counts(look.captions.values())
    own = [words_of(line) for line in look.options.more_synonyms]
    for words, chosen in [*((each, True) for each in own), *((words_of(line), False) for line in SYNONYMS)]:
        used = [word for word in words if frequency[key(word)]]
        if not used or (len(used) == 1 and not chosen):
            continue
        target = words[0] if chosen else max(used, key=lambda word: frequency[key(word)])
        for word in used:
            if key(word) != key(target):
                why = f"“{word}” and “{target}” are one thing; under one name it is learned from all its pictures."
                yield from _renaming("synonyms", word, target, why, look.captions)


def typos(look: Look) -> Iterator[CleanProposal]:
    """Propose to correct rare tags one letter away from a frequent one; long ones may be two letters away.

    Tags that the lexicon or the tagger knows are no errors, nor are those that differ in a digit or in a plural's s.
    """
    frequency = counts(look.captions.values())
    frequent = [(tag, count) for tag, count in frequency.most_common() if count >= FREQUENT]
    for tag, count in frequency.items():
        if count > RARE or len(tag) < 4 or tag in look.facts.known or _is_known(tag):
            continue
        allowed = 2 if len(tag) >= 10 else 1
        near = (
            other
            for other, often in frequent
            if often >= TIMES * count and abs(len(other) - len(tag)) <= allowed and _is_typo(tag, other, allowed)
        )
        target = next(near, None)
        if target is not None:
            why = f"It occurs {count} times, “{target}” {frequency[target]} times, and they differ in a letter or two."
            yield from _renaming("typos", tag, target, why, look.captions)


def overlap(look: Look) -> Iterator[CleanProposal]:
    """Propose initials for a tag that begins with another one: `aiming at viewer` beside `aiming` becomes `aav` (G4).

    Of three words or more, and where the initials are no tag yet.
    """
    frequency = counts(look.captions.values())
    for tag in sorted(frequency):
        words = tag.split(" ")
        short = next((" ".join(words[:n]) for n in range(1, len(words)) if " ".join(words[:n]) in frequency), None)
        initials = "".join(word[0] for word in words if word)
        if short is None or len(words) < 3 or initials in frequency or not initials.isalpha():
            continue
        why = f"It shares words with “{short}”, so that the model mixes what both mean; a name of its own keeps them apart."
        yield from _renaming("overlap", tag, initials, why, look.captions)


def _renaming(rule: str, old: str, new: str, why: str, captions: Captions) -> Iterator[CleanProposal]:
    wanted = key(old)
    spellings: Mapping[Path, list[str]] = {
        path: [tag for tag in caption.tags if key(tag) == wanted]
        for path, caption in captions.items()
        if wanted in caption.keys
    }
    rewrites = {path: (Rewrite(frozenset({wanted}), (spelled(new, tags),)),) for path, tags in spellings.items()}
    if rewrites:
        usual = Counter(tag for tags in spellings.values() for tag in tags).most_common(1)[0][0]
        yield CleanProposal(rule, f"{usual} → {spelled(new, [usual])}", why, rewrites)


def _is_known(tag: str) -> bool:
    group = group_of(tag)
    # A noun behind unknown words decides nothing: `lnog hair` is hair all the same.
    return group is not None and (" " not in tag or group.family == "name")


def _is_typo(tag: str, other: str, allowed: int) -> bool:
    if other in (tag, f"{tag}s", f"{tag}es") or tag in (f"{other}s", f"{other}es"):
        return False
    if [character for character in tag if character.isdecimal()] != [c for c in other if c.isdecimal()]:
        return False
    # In a short word another letter makes another word, as in `red hair` and `bed hair`.
    pairs = [pair for pair in zip(tag.split(" "), other.split(" "), strict=False) if pair[0] != pair[1]]
    if any(one.rstrip("s") == two.rstrip("s") for one, two in pairs):
        return False
    if tag.count(" ") == other.count(" ") and any(
        min(map(len, pair)) < 4 or pair[0] in lexicon_words() for pair in pairs
    ):
        return False
    return distance(tag, other, allowed) <= allowed


def distance(one: str, other: str, most: int) -> int:
    """Return how many letters must be put in, left out, exchanged or swapped with their neighbour; `most` + 1 if more.

    The optimal string alignment distance: no part is changed twice.
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i, *[0] * len(other)]
        for j, wanted in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                row[j] = min(row[j], earlier[j - 2] + 1)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)
