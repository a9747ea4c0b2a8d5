"""Blocks of a model, as lora-block-weight numbers them: BASE, IN00 to IN11, MID, OUT00 to OUT11."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family

if TYPE_CHECKING:
    from lib_lora_trainer.adapters.targets import Layer

BASE = "BASE"
MIDDLE = "MID"
OUTSIDE = ""


def _numbered(word: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{word}{number:02d}" for number in numbers)


# What the numbers of a vector stand for, by how many there are: sd-webui-lora-block-weight's BLOCKID lists at b403cb7
# (its M00 is MID here); the same as in sd-scripts' svd_merge_lora.py.
ORDERS: dict[int, tuple[str, ...]] = {
    12: (BASE, *_numbered("IN", 4, 5, 7, 8), MIDDLE, *_numbered("OUT", *range(6))),
    17: (BASE, *_numbered("IN", 1, 2, 4, 5, 7, 8), MIDDLE, *_numbered("OUT", *range(3, 12))),
    20: (BASE, *_numbered("IN", *range(9)), MIDDLE, *_numbered("OUT", *range(9))),
    26: (BASE, *_numbered("IN", *range(12)), MIDDLE, *_numbered("OUT", *range(12))),
}

# Full-width forms of ASCII, and the comma, dash and tilde that Chinese and Japanese keyboards and web pages put in.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(there): here for there, here in (("\u3000", " "), ("、", ","), ("–", "-"), ("−", "-"))
}
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_PATH = re.compile(r"(input_blocks|output_blocks)\.([0-9]+)\.|middle_block\.")
_END = re.compile(r"([A-Z]*)([0-9]{1,2})|(MID|BASE|TE)")


def names(family: Family) -> tuple[str, ...]:
    """Return every block of a family in the model's order, BASE first."""
    return ORDERS[20 if family == "sdxl" else 26]


def block_of(layer: Layer, family: Family) -> str:
    """Return the block of a layer: BASE for text encoders, IN00, MID, OUT00 and so on for the UNet.

    The first convolution is IN00. The time and label embeddings and the output's norm and convolution (`time_embed`,
    `label_emb`, `out`) belong to no block and give "": lora-block-weight matches none of them (`ratiodealer`, b403cb7).
    Raises ConfigError for a block that the family has not.
    """
    if layer.part != "unet":
        return BASE
    match = _PATH.match(layer.path)
    if match is None:
        return OUTSIDE
    block = MIDDLE if match[1] is None else f"{'IN' if match[1] == 'input_blocks' else 'OUT'}{int(match[2]):02d}"
    if block not in names(family):
        raise ConfigError(
            f"{layer.path} is in block {block}; {family} has {existing(family)}. Is the model's family {family}?"
        )
    return block


def existing(family: Family) -> str:
    """Return the blocks of a family in words, for messages."""
    last = (len(names(family)) - 4) // 2
    return f"IN00 to IN{last:02d}, MID, OUT00 to OUT{last:02d} and BASE (text encoders)"


def parse(text: str, family: Family) -> frozenset[str]:
    """Return the blocks that a text names.

    text: blocks and ranges with both ends, `IN04-07,MID,OUT03-06`, the words IN, MID, OUT, BASE or TE, ALL; or a vector
    as for lora-block-weight, in which every number but 0 switches its block on: 17 or 26 numbers for SD1 and SD2, 12 or
    20 for SDXL. Blocks that a short vector leaves out are off, as there. Empty text names every block. Letters of either
    case, spaces for commas, and full-width characters are taken as well.
    Raises ConfigError that names what exists for anything else.
    """
    items = _items(text)
    if not text.strip():
        return frozenset(names(family))
    if not items:
        raise ConfigError(f"{text!r} names no block. {_hint(family)}")
    if is_vector(text):
        return _from_vector(items, family)
    joined = re.sub(r"\s*-\s*", "-", text.translate(_WIDE))
    return frozenset(block for item in re.split(r"[,\s]+", joined) if item for block in _from_item(item, family))


def is_vector(text: str) -> bool:
    """Tell whether a text is a vector of numbers instead of blocks' names."""
    items = _items(text)
    return bool(items) and all(_NUMBER.fullmatch(item) for item in items)


def plain(text: str) -> str:
    """Return a text with full-width characters as ASCII."""
    return text.translate(_WIDE)


def _items(text: str) -> list[str]:
    return [item for item in re.split(r"[,\s]+", text.translate(_WIDE)) if item]


def _hint(family: Family) -> str:
    return f"The blocks of {family} are {existing(family)}; write for instance IN04-07,MID,OUT03."


def _from_vector(items: list[str], family: Family) -> frozenset[str]:
    allowed = (12, 20) if family == "sdxl" else (17, 26)
    if len(items) not in allowed:
        others = (
            f", which is a vector for {'SD1 and SD2' if family == 'sdxl' else 'SDXL'}" if len(items) in ORDERS else ""
        )
        raise ConfigError(
            f"it has {len(items)} numbers{others}; for {family} write {allowed[0]} ({', '.join(ORDERS[allowed[0]])}) or "
            f"{allowed[1]} (all blocks)."
        )
    return frozenset(block for block, item in zip(ORDERS[len(items)], items, strict=True) if float(item))


def _from_item(item: str, family: Family) -> tuple[str, ...]:
    known, word = names(family), item.upper()
    if word == "ALL":
        return known
    if word in ("IN", "OUT"):
        return tuple(block for block in known if block.startswith(word))
    first, dash, last = word.partition("-")
    start = _end(first, "", item, family)
    if not dash:
        return (start,)
    end = _end(last, re.sub("[0-9]", "", start), item, family)
    here, there = known.index(start), known.index(end)
    if there < here:
        raise ConfigError(f"{item!r} runs backwards. Write the smaller block first: {end}-{start}.")
    return known[here : there + 1]


def _end(text: str, word: str, item: str, family: Family) -> str:
    """Return the block that one end of a range names; word: used when the text is only a number."""
    match = _END.fullmatch("MID" if text == "M00" else text)
    if match is None:
        raise ConfigError(f"{item!r} is no block. {_hint(family)}")
    block = {"TE": BASE}.get(match[3], match[3]) if match[3] else f"{match[1] or word}{int(match[2]):02d}"
    if block not in names(family):
        lacking = "is no block" if not re.fullmatch("(IN|OUT)[0-9]{2}", block) else f"does not exist in {family}"
        raise ConfigError(f"{item!r} {lacking}. {_hint(family)}")
    return block
