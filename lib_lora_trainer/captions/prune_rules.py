"""Which tags a trigger of each kind swallows, and which stay whatever is trained, with the guides' reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lib_lora_trainer.captions.lexicon import Group, key
from lib_lora_trainer.captions.prune_values import Kind, Trigger

HALF = 0.5
"""From this share of a folder's pictures on a tag is taken for a part of what is trained."""
HIDDEN = 0.2
"""Down to this share one without rivals is, too: taggers overlook it, and close-ups do not show it."""
RARE = 0.05
SIGNATURE = 0.9
"""From this share on a garment may be a part of a character, as a scarf that is never taken off."""
DOUBTFUL = 0.5
"""A mean score below it is no sure detection: WD taggers' thresholds lie between 0.26 and 0.53."""


@dataclass(frozen=True)
class Rule:
    """What a kind swallows. families, groups: whose tags go; names: whether characters' names are removed.

    what: the reason in words.
    """

    families: tuple[str, ...]
    groups: tuple[str, ...]
    what: str
    names: bool = False


# G3 and G4, "what to prune, by kind".
RULES: Mapping[Kind, Rule] = {
    "character": Rule(("trait", "ornament"), (), "part of the character's looks"),
    "outfit": Rule(("garment",), (), "part of the outfit"),
    "pose": Rule(("pose", "gesture"), (), "names the situation", names=True),
    "object": Rule(("object",), (), "names the object, or another thing in its place", names=True),
    "style": Rule((), ("medium", "sky and time", "lighting"), "implied by the style"),
    "background": Rule(("place",), ("furniture",), "part of the place"),
}
DARK = frozenset(("night", "night sky", "dark", "darkness", "shadow", "shadows", "low key", "shade", "silhouette"))
"""What a style may imply of light and time; sunsets and rain are what a picture shows."""

PROTECTED = {
    "breasts": "breast size is never pruned: it would be baked into the trigger",
    "count": "who and how many are shown is never pruned",
    "view": "direction and view are never pruned: the trigger would ask for this framing",
    "footwear": "shoes are never folded into a trigger: it would ask for full-body pictures",
}
_KEPT = {
    ("character", "garment"): "clothes stay, so that they can be changed",
    ("background", "trait"): "person tags stay, so that people do not become a part of the place",
    ("background", "ornament"): "person tags stay, so that people do not become a part of the place",
    ("background", "garment"): "person tags stay, so that people do not become a part of the place",
    ("background", "name"): "person tags stay, so that people do not become a part of the place",
    ("outfit", "trait"): "the wearer's looks stay, so that anybody can wear it",
    ("outfit", "ornament"): "it can be worn with other clothes",
    ("style", ""): "a style's captions keep what the pictures show",
}


def swallows(trigger: Trigger, tag: str, group: Group | None) -> bool:
    """Tell whether a trigger's kind asks for a tag; however often it occurs, and protected or not."""
    rule = RULES[trigger.kind]
    if is_named(tag, group, trigger.more):
        return True
    if group is None:
        return False
    if trigger.kind == "style" and group.name in ("sky and time", "lighting"):
        return key(tag) in DARK
    return group.family in rule.families or group.name in rule.groups


def is_named(tag: str, group: Group | None, named: Iterable[str]) -> bool:
    """Tell whether a tag is among names of groups, families or tags."""
    wanted = {key(name) for name in named}
    return key(tag) in wanted or (group is not None and not wanted.isdisjoint((group.name, group.family)))


def protection(group: Group | None) -> str:
    """Return why tags of a group always stay; "" when they need not."""
    return PROTECTED.get(group.family, "") if group is not None else ""


def kept_because(triggers: Iterable[Trigger], group: Group | None) -> str:
    """Return why a tag stays that no trigger asks for."""
    if group is None:
        return "in no group that is known"
    kinds = [trigger.kind for trigger in triggers]
    for kind in kinds:
        text = _KEPT.get((kind, group.family)) or _KEPT.get((kind, ""))
        if text:
            return text
    return f"{group.name} can be changed by prompts"
