"""Names for outfits: `Color1_item1_Color2_item2…`, the most visible first and modifiers last (G3), and its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.captions.lexicon import group_of, parts_of

MOST = 4
"""More garments make a name that takes more tokens than it distinguishes."""

# By how much of a picture a garment takes; footwear never counts, as the trigger never swallows it.
_VISIBLE = (
    ("dress", "costume", "swimwear", "outerwear"),
    ("top",),
    ("bottom",),
    ("underwear",),
    ("headwear",),
    ("legwear",),
    ("neckwear", "waist"),
    ("handwear", "sleeves"),
)
_RANK = {name: rank for rank, names in enumerate(_VISIBLE) for name in names}
_NO_ITEMS = frozenset(("sleeves", "footwear", "headwear", "legwear", "neckwear", "clothes", "clothing", "sleeveless"))
"""Words that name no garment of their own without a colour: `long sleeves`, `see-through clothes`."""


@dataclass(frozen=True)
class Garment:
    """One garment of an outfit. rank: how visible, 0 most; images: that show it, the most of any of its tags."""

    item: str
    colours: tuple[str, ...]
    modifiers: tuple[str, ...]
    rank: int
    images: int


def garments(counts: Mapping[str, int]) -> tuple[Garment, ...]:
    """Return the garments that tags name, the most visible first; counts: tag to how many pictures have it.

    Tags of one noun are one garment: `vest`, `frilled vest` and `brown vest` are a brown, frilled vest. Of several
    colours the more frequent comes first. Tags that are no garments do not count, nor does footwear.
    """
    found: dict[str, Garment] = {}
    for tag, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        group, parts = group_of(tag), parts_of(tag)
        if group is None or group.name not in _RANK:
            continue
        item = parts.noun.replace(" ", "_")
        if parts.noun in _NO_ITEMS and not parts.colours:
            continue
        known = found.get(item, Garment(item, (), (), _RANK[group.name], 0))
        found[item] = replace(
            known,
            colours=tuple(dict.fromkeys((*known.colours, *parts.colours))),
            modifiers=tuple(dict.fromkeys((*known.modifiers, *parts.modifiers))),
            images=max(known.images, count),
        )
    return tuple(sorted(found.values(), key=lambda each: (each.rank, -each.images, each.item)))


def outfit_trigger(counts: Mapping[str, int], most: int = MOST) -> str:
    """Return an outfit's name: `Brown_vest_White_shirt_Black_skirt_frilled_pleated`; "" when no tag is a garment.

    most: garments in the name. A garment without colour stands there by its item alone, in capitals at its beginning.
    """
    chosen = garments(counts)[:most]
    items = [part for garment in chosen for part in _named(garment)]
    modifiers = dict.fromkeys(word.replace(" ", "_") for garment in chosen for word in garment.modifiers)
    return "_".join((*items, *modifiers))


def _named(garment: Garment) -> tuple[str, ...]:
    if not garment.colours:
        return (_capital(garment.item),)
    return (_capital(garment.colours[0].replace(" ", "_")), garment.item)


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def variants(base: str, seasons: Sequence[str], repeats: float) -> tuple[tuple[str, float], ...]:
    """Return a trigger and its repeats for each variant of an outfit: `Red_coat_winter` extends the shared `Red_coat`.

    Sharing the base lets variants learn from each other (G3's deliberate contamination); so that the base is not shown
    more often than other outfits, they share its repeats, in thousandths at least. Raises ConfigError for variants of
    one name, or none.
    """
    names = [season.strip().replace(" ", "_") for season in seasons]
    if not names or len(set(names)) < len(names) or not all(names):
        raise ConfigError(f"variants: {', '.join(seasons) or 'none'}. Give each variant a name of its own.")
    each = max(round(repeats / len(names), 3), 0.001)
    return tuple((f"{base}_{name}", int(each) if each == int(each) else each) for name in names)
