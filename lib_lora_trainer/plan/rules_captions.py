"""What captions and their settings contradict."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.captions.variants import effective, reasons_varying
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.plan.case import Case, named

_HALF = 0.5
_CHUNK = 75
_SERIES = re.compile(r"(?<=\w)\(")  # as in name_(series)
_WEIGHT = re.compile(r"(?<!\\)\([^()]*:\s*[+-]?[\d.]+\s*\)")
_ESCAPE = re.compile(r"\\[()\[\]]")
_WILDCARD = re.compile(r"\{[^{}]*\|[^{}]*\}")
# Field of CaptionConfig → of SourceConfig, which takes its place where it is set.
_OWN = {"shuffle": "shuffle", "dropout": "caption_dropout", "tag_dropout": "tag_dropout"}


def triggers(case: Case) -> Iterator[Problem]:
    """Triggers that no caption has, and those that regularization images have."""
    captioned = [item for item in case.pictures if item.caption_file is not None]
    regularizing = [item for item in case.scan.items if item.regularization]
    for trigger in case.config.triggers:
        if captioned and not any(_has(case, item, trigger) for item in captioned):
            text = f"no caption contains {trigger!r}, so it will call nothing."
            yield Problem(
                "warning", "triggers", text, f"Put it first in the captions, or set data.caption.prefix to {trigger!r}."
            )
        count = sum(_has(case, item, trigger) for item in regularizing)
        if count:
            text = f"{count} captions of regularization images contain {trigger!r}, which ties it to them."
            fix = "Remove it there; a prefix or suffix of their own keeps the general one away from them."
            yield Problem("warning", "triggers", text, fix)


def _has(case: Case, item: Item, trigger: str) -> bool:
    settings = case.caption_settings(item)
    return trigger.lower() in f"{settings.prefix} {item.caption} {settings.suffix}".lower()


def marks(case: Case) -> Iterator[Problem]:
    """Brackets and braces in captions that are not read as they were written for."""
    caption, texts = case.config.data.caption, [item.caption for item in case.scan.items]
    found = {
        pattern: sum(bool(pattern.search(text)) for text in texts) for pattern in (_SERIES, _WEIGHT, _ESCAPE, _WILDCARD)
    }
    if caption.emphasis and found[_SERIES]:
        text = f"{found[_SERIES]} captions have brackets within a word, as in name_(series), which weight it."
        yield Problem("warning", "data.caption.emphasis", text, r"Write \( and \) for brackets that are meant.")
    if not caption.emphasis and found[_ESCAPE]:
        text = rf"{found[_ESCAPE]} captions have \( or \), and their backslashes are read as text."
        yield Problem("warning", "data.caption.emphasis", text, "Switch it on, or remove the backslashes.")
    if not caption.emphasis and found[_WEIGHT]:
        text = f"is off, so the weights in {found[_WEIGHT]} captions, as in (tag:1.2), are read as text."
        yield Problem("note", "data.caption.emphasis", text)
    if not caption.wildcards and found[_WILDCARD]:
        text = f"is off, so {{a|b}} in {found[_WILDCARD]} captions is read as text."
        yield Problem("note", "data.caption.wildcards", text)


def text_cache(case: Case) -> Iterator[Problem]:
    """Reasons why the text encoder's outputs cannot be kept."""
    if case.config.data.cache_text == "none":
        return
    where = "data.cache_text"
    if case.trains_text:
        text = "is on, but the text encoder is trained, so its outputs change."
        yield Problem("error", where, text, "Set it to none, or do not train the text encoder.")
    varying = _varying(case)
    if varying:
        text = f"is on, but captions change from one exposure to the next: {named(varying)}."
        yield Problem("error", where, text, "Switch those off, or set it to none.")


def _varying(case: Case) -> list[str]:
    found: dict[str, None] = {}
    general = case.config.data.caption
    for where, source in list(case.numbered_sources()) or [("", SourceConfig())]:
        for name in reasons_varying(effective(general, source)):
            own = _OWN.get(name, "")
            overridden = bool(own) and getattr(source, own) is not None
            found[f"{where}.{own}" if overridden else f"data.caption.{name}"] = None
    return list(found)


def lengths(case: Case) -> Iterator[Problem]:
    """A token limit between chunks, and a token warm-up that never ends."""
    limit = case.config.training.token_limit
    if limit % _CHUNK:
        text = f"captions are read in chunks of {_CHUNK} tokens, so {limit // _CHUNK * _CHUNK} of {limit} are used."
        yield Problem("note", "training.token_limit", text)
    warmup = case.config.data.caption.warmup
    if case.steps and warmup > case.steps:
        text = f"lasts {warmup:g} steps, longer than the run's {case.steps}: captions never become whole."
        yield Problem("warning", "data.caption.warmup", text, "Lower it; below 1 it is a share of the run.")


def dropouts(case: Case) -> Iterator[Problem]:
    """Shares so high that little is left to learn, and epochs without captions that never or always come."""
    config, caption = case.config, case.config.data.caption
    shares = [
        ("adapter.dropout", config.adapter.dropout),
        ("adapter.rank_dropout", config.adapter.rank_dropout),
        ("adapter.module_dropout", config.adapter.module_dropout),
        ("data.caption.dropout", caption.dropout),
        ("data.caption.tag_dropout", caption.tag_dropout),
    ]
    for where, source in case.numbered_sources():
        shares += [
            (f"{where}.caption_dropout", source.caption_dropout or 0.0),
            (f"{where}.tag_dropout", source.tag_dropout or 0.0),
        ]
    for where, share in shares:
        if share > _HALF:
            text = f"{share:g} drops more than half, so what is left learns little."
            yield Problem("warning", where, text, "0.05 to 0.3 is usual.")
    every = caption.dropout_every_epochs
    where = "data.caption.dropout_every_epochs"
    if every == 1:
        yield Problem("warning", where, "is 1: no epoch has captions.", "Raise it, or set it to 0.")
    elif every > config.training.epochs:
        yield Problem("note", where, f"has no effect: the run has {config.training.epochs} epochs.")
