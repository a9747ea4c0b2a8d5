"""What tagging can be told: one definition of every option, read by the command line, the tab and the checks."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.base.setting import range_problems, setting
from lib_lora_trainer.tagging import rules

CUTS = ("threshold", "largest-gap")
COMBINATIONS = ("union", "intersection", "mean")
RATINGS = ("none", "first", "last")
ORDERS = ("score", "alphabet")
MODES = ("overwrite", "if-empty", "append", "prepend")
DEVICES = ("auto", "cpu")


@dataclass(frozen=True)
class TagOptions:
    """Which taggers look at the pictures, which of their tags are taken, and how they are written."""

    taggers: tuple[str, ...] = setting(
        ("wd-swinv2-tagger-v3",), "Names of WD taggers, or folders with model.onnx and selected_tags.csv.",
        label="Taggers", essential=True,
    )  # fmt: skip
    combine: str = setting(
        "union", "Of several taggers: tags that any takes, that all take which know them, or that their mean takes.",
        label="Several taggers", choices=COMBINATIONS,
    )  # fmt: skip
    cut: str = setting(
        "threshold", "Take tags from a threshold on, or those before the largest gap between scores (MCut).",
        label="Cut", choices=CUTS,
    )  # fmt: skip
    general_threshold: float = setting(
        0.0, "Lowest score of a general tag; 0: the tagger's own.", label="General threshold",
        minimum=0.0, maximum=1.0, essential=True,
    )  # fmt: skip
    character_threshold: float = setting(
        0.0, "Lowest score of a character's name; 0: the tagger's own.", label="Character threshold",
        minimum=0.0, maximum=1.0, essential=True,
    )  # fmt: skip
    mode: str = setting(
        "if-empty", "What happens to captions that exist.", label="Write", choices=MODES, essential=True
    )
    exclude: tuple[str, ...] = setting(
        (), "Tags that are never written; /…/ is a regular expression for whole tags.", label="Exclude"
    )
    replace: tuple[str, ...] = setting(
        (), "OLD=NEW writes other tags for a tag, or none; /…/=NEW with a regular expression, \\1 for its groups.",
        label="Replace",
    )  # fmt: skip
    character_first: bool = setting(True, "Write characters' names before general tags.", label="Characters first")
    rating: str = setting(
        "none", "Where the rating (general, sensitive, questionable, explicit) is written.",
        label="Rating tag", choices=RATINGS,
    )  # fmt: skip
    order: str = setting("score", "By what the tags are sorted.", label="Order", choices=ORDERS)
    maximum: int = setting(
        0, "Write at most so many tags, those with the highest scores; 0: all.", label="Maximum",
        minimum=0, maximum=1000,
    )  # fmt: skip
    underscores: bool = setting(False, "Write tags with underscores, as boards do.", label="Underscores")
    escape: bool = setting(
        False, "Write backslashes before brackets, as prompts need them and captions do not.", label="Escape brackets"
    )
    device: str = setting(
        "auto", "What the taggers run on: the best provider that starts, or the CPU.", label="Device", choices=DEVICES
    )
    batch: int = setting(
        8, "Pictures tagged at once, where the model leaves it open.", label="Batch size", minimum=1, maximum=64
    )


def problems(options: TagOptions) -> list[Problem]:
    """Return every mistake in the options: ranges, regular expressions, and that there is a tagger."""
    found = range_problems(options)
    if not options.taggers:
        found.append(Problem("error", "taggers", "there is none.", "Choose at least one."))
    for name in ("exclude", "replace"):
        for index, text in enumerate(getattr(options, name)):
            try:
                rules.exclusion(text) if name == "exclude" else rules.replacement(text)
            except ConfigError as error:
                found.append(Problem("error", f"{name}[{index}]", str(error)))
    return found
