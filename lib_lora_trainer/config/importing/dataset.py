"""Folders, captions and buckets: from subsets, datasets, [general] and the run's own arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.importing import folders, values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, attempt

Levels = tuple[Arguments, ...]
"""Where a value is looked for: the most special place first (config_util.py of sd-scripts, `BlueprintGenerator`)."""


@dataclass(frozen=True)
class Part:
    """One of several datasets: what it says itself, and its subsets."""

    own: Arguments = field(default_factory=dict)
    subsets: tuple[Arguments, ...] = ()


@dataclass(frozen=True)
class Datasets:
    """All datasets of a file, with what [general] says for all of them."""

    general: Arguments = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


_OF_SOURCES: MappingProxyType[str, tuple[str, str, Callable[[Any], Any], Any]] = MappingProxyType({
    "flip_aug": ("flip", "data.flip", values.switch, False),
    "shuffle_caption": ("shuffle", "data.caption.shuffle", values.switch, False),
    "keep_tokens": ("keep_tokens", "data.caption.keep_tokens", values.whole, 0),
    "caption_prefix": ("prefix", "data.caption.prefix", values.text, ""),
    "caption_suffix": ("suffix", "data.caption.suffix", values.text, ""),
    "caption_dropout_rate": ("caption_dropout", "data.caption.dropout", values.number, 0.0),
    "caption_tag_dropout_rate": ("tag_dropout", "data.caption.tag_dropout", values.number, 0.0),
})  # fmt: skip
_OF_ALL: MappingProxyType[str, tuple[str, Callable[[Any], Any], Any]] = MappingProxyType({
    "color_aug": ("data.color", values.switch, False),
    "random_crop": ("data.random_crop", values.switch, False),
    "caption_dropout_every_n_epochs": ("data.caption.dropout_every_epochs", values.whole, 0),
    "token_warmup_step": ("data.caption.warmup", values.number, 0.0),
    "token_warmup_min": ("data.caption.warmup_tags", values.whole, 1),
    "enable_wildcard": ("data.caption.wildcards", values.switch, False),
    "keep_tokens_separator": ("data.caption.separator", values.text, None),
    "secondary_separator": ("data.caption.secondary_separator", values.text, None),
    "batch_size": ("training.batch_size", values.whole, 1),
    "enable_bucket": ("data.bucket", values.switch, False),
    "min_bucket_reso": ("data.bucket_minimum", values.whole, 256),
    "max_bucket_reso": ("data.bucket_maximum", values.whole, 1024),
    "bucket_reso_steps": ("data.bucket_step", values.whole, 64),
    "bucket_no_upscale": ("data.no_upscale", values.switch, False),
    "prior_loss_weight": ("loss.prior_weight", values.number, 1.0),
})  # fmt: skip
_LEFT = MappingProxyType({
    "metadata_file": "Captions in a metadata file are not read. Write each beside its picture as a .txt file.",
    "validation_split": "No pictures are set aside for validation here.",
    "validation_seed": "No pictures are set aside for validation here.",
    "resize_interpolation": "Pictures are always resized in the way that suits their change in size here.",
    "cache_info": "Only how the folders are read.",
    "debug_dataset": "Only a way to look at the dataset.",
})  # fmt: skip
_ONE_HERE = "There is one value for all folders here; the first is taken."
_SPECIAL = frozenset({
    "resolution", "caption_extension", "face_crop_aug_range", "image_dir", "num_repeats", "is_reg", "class_tokens",
    "conditioning_data_dir", "alpha_mask", "custom_attributes", "caption_separator", "network_multiplier", "name",
})  # fmt: skip
NAMES = frozenset({*_OF_SOURCES, *_OF_ALL, *_LEFT, *_SPECIAL})


def translate(datasets: Datasets, arguments: Arguments, folder: Path, masked: bool) -> Iterator[Outcome]:
    """Yield what becomes of the datasets.

    arguments: the run's own, for what no dataset says; folder: of the file, for relative paths; masked: whether masks
    count. Every key in `NAMES` gets an outcome; the others of the datasets are left with a sentence.
    """
    repeated = _is_repeated(datasets.parts)
    positions: list[tuple[int, Levels]] = [
        (number if repeated else index, (subset, part.own, datasets.general, arguments))
        for index, (number, part, subset) in enumerate(
            (number, part, subset) for part in datasets.parts for number, subset in enumerate(part.subsets)
        )
    ]
    all_levels: list[Levels] = [levels for _, levels in positions] or [
        (part.own, datasets.general, arguments) for part in datasets.parts or (Part(),)
    ]
    for name, (own, setting, convert, default) in _OF_SOURCES.items():
        yield from _of_sources(name, own, setting, convert, default, positions, all_levels)
    for name, (setting, convert, default) in _OF_ALL.items():
        yield from _of_all(name, setting, convert, default, all_levels)
    yield from _resolutions(all_levels, positions, repeated)
    yield from _extensions(all_levels)
    yield from _face_crop(all_levels)
    for index, levels in positions:
        yield from folders.translate(index, levels, folder, masked)
    yield from _left(all_levels)
    yield from _rest(datasets, arguments)


def nearest(name: str, levels: Sequence[Arguments]) -> Argument | None:
    """Return the argument that counts: the first that is given."""
    return next((level[name] for level in levels if name in level and not values.is_empty(level[name].value)), None)


def _is_repeated(parts: Sequence[Part]) -> bool:
    """Tell whether several datasets have the same subsets, and so train the same pictures in several sizes."""
    said = [[{name: each.value for name, each in subset.items()} for subset in part.subsets] for part in parts]
    return len(said) > 1 and all(said) and all(subsets == said[0] for subsets in said[1:])


def _of_sources(
    name: str,
    own: str,
    setting: str,
    convert: Callable[[Any], Any],
    default: Any,
    positions: Sequence[tuple[int, Levels]],
    all_levels: Sequence[Sequence[Arguments]],
) -> Iterator[Outcome]:
    """Yield one value for all when all sources agree, else one for each."""
    found = [nearest(name, levels) for levels in all_levels]
    if len({repr(each.value) if each else repr(default) for each in found}) <= 1 or not positions:
        yield from (attempt(each, setting, convert) for each in found if each is not None)
        if found[0] is None:
            yield Put("", setting, default)
        return
    yield Put("", setting, default)
    for (index, _), each in zip(positions, found, strict=True):
        path = f"data.sources[{index}].{own}"
        yield attempt(each, path, convert) if each is not None else Put("", path, default)


def _of_all(
    name: str, setting: str, convert: Callable[[Any], Any], default: Any, all_levels: Sequence[Sequence[Arguments]]
) -> Iterator[Outcome]:
    found = [nearest(name, levels) for levels in all_levels]
    first = found[0]
    if first is not None:
        yield attempt(first, setting, convert)
    elif default is not None:
        yield Put("", setting, default)
    for each in found[1:]:
        if each is not None and repr(each.value) == repr(first.value if first else default):
            yield attempt(each, setting, convert)
        elif each is not None:
            yield Leave(each.key, each.value, _ONE_HERE)


def _resolutions(
    all_levels: Sequence[Sequence[Arguments]], positions: Sequence[tuple[int, Levels]], repeated: bool
) -> Iterator[Outcome]:
    found = [nearest("resolution", levels) for levels in all_levels]
    tries = [attempt(each, "data.resolution", values.side) for each in found if each is not None]
    sides = [each for each in tries if isinstance(each, Put)]
    yield from (each for each in tries if not isinstance(each, Put))
    if not sides:
        return
    yield sides[0]
    different = list(dict.fromkeys(each.value for each in sides))
    for each in sides[1:]:
        if repeated:
            yield Put(each.key, "data.more_resolutions", tuple(different[1:]))
        elif each.value == sides[0].value:
            yield each
    if len(different) > 1 and not repeated:
        for (index, _), argument in zip(positions, found, strict=True):
            if argument is not None:
                yield attempt(argument, f"data.sources[{index}].resolution", values.side)
    yield from _shapes(found, all_levels)


def _shapes(found: Sequence[Argument | None], all_levels: Sequence[Sequence[Arguments]]) -> Iterator[Outcome]:
    """Yield a remark for a resolution that is no square where no buckets keep the pictures' own shapes."""
    for each, levels in zip(found, all_levels, strict=True):
        bucket = nearest("enable_bucket", levels)
        if each is None or (bucket is not None and not values.is_off(bucket.value)):
            continue
        try:
            sides = values.numbers(each.value)
        except ValueError:
            continue  # has its outcome already
        if len(set(sides)) > 1:
            text = "Without buckets pictures are squares here, of the same area. Switch data.bucket on."
            yield Leave(each.key, each.value, text)


def _extensions(all_levels: Sequence[Sequence[Arguments]]) -> Iterator[Outcome]:
    """Yield all extensions of caption files; sd-scripts' own is .caption, after which .txt is looked for here."""
    found = [nearest("caption_extension", levels) for levels in all_levels]
    given = [each for each in found if each is not None]
    names = tuple(dict.fromkeys(str(each.value) for each in given))
    if not names:
        yield Put("", "data.caption.extensions", (".caption", ".txt"))
    for each in given:
        yield Put(each.key, "data.caption.extensions", names)
    if len(names) > 1:
        text = "Every folder is searched for all of these extensions, in this order."
        yield from (Leave(each.key, each.value, text) for each in given)


def _face_crop(all_levels: Sequence[Sequence[Arguments]]) -> Iterator[Outcome]:
    found = [each for each in (nearest("face_crop_aug_range", levels) for levels in all_levels) if each is not None]
    for each in found:
        if repr(each.value) != repr(found[0].value):
            yield Leave(each.key, each.value, _ONE_HERE)
            continue
        try:
            smallest, largest = values.numbers(each.value)
        except ValueError:
            yield Leave(each.key, each.value, f"{each.value!r} is not two numbers.")
            continue
        yield Put(each.key, "data.face_crop_minimum", smallest)
        yield Put(each.key, "data.face_crop_maximum", largest)


def _left(all_levels: Sequence[Sequence[Arguments]]) -> Iterator[Outcome]:
    for name, reason in _LEFT.items():
        for each in (nearest(name, levels) for levels in all_levels):
            if each is not None:
                yield Silent(each.key) if values.is_off(each.value) else Leave(each.key, each.value, reason)
    for each in (nearest("caption_separator", levels) for levels in all_levels):
        if each is not None:
            comma = str(each.value).strip() == ","
            yield (
                Silent(each.key) if comma else Leave(each.key, each.value, "Tags are always separated by commas here.")
            )
    for each in (nearest("network_multiplier", levels) for levels in all_levels):
        if each is not None:
            text = "The adapter always trains at full strength here."
            yield Silent(each.key) if each.value == 1 else Leave(each.key, each.value, text)


def _rest(datasets: Datasets, arguments: Arguments) -> Iterator[Outcome]:
    """Yield an outcome for every key of the datasets: overruled everywhere, empty, a mere name, or unknown.

    Only keys without another outcome keep it: `outcomes.sort` drops it for the others.
    """
    subsets = [subset for part in datasets.parts for subset in part.subsets]
    for level in (datasets.general, *(part.own for part in datasets.parts), *subsets):
        for name, argument in level.items():
            if name in NAMES or values.is_empty(argument.value):
                yield Silent(argument.key)
            elif argument.key:
                yield Leave(
                    argument.key, argument.value, "This key is not known here; it may belong to another trainer."
                )
    for name, argument in arguments.items():
        if name in NAMES:
            yield Silent(argument.key)
