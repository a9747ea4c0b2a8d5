"""Which regularization images belong to a training dataset: their texts, names, sizes and seeds. Makes none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.captions import reduced, wildcards
from lib_lora_trainer.captions.reduced import Cut
from lib_lora_trainer.captions.variants import Moment, effective, vary
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.entries import absolute, printable, real
from lib_lora_trainer.dataset.faces import without_face
from lib_lora_trainer.dataset.items import Concept, Item, Scan, whole
from lib_lora_trainer.dataset.repeats import MAXIMUM_REPEATS, words_in_name
from lib_lora_trainer.dataset.views import views

_SEEDS = 2**32  # as many as the WebUI's seed field takes
_FIRST = Moment(0.0, 0, 1, 1)


@dataclass(frozen=True)
class RegImage:
    """One regularization image. picture: what it belongs to; index: from 0, among the images of that picture.

    name: its path without ending below the folder of regularization images, with forward slashes: the concept without
    the number in front of its name, then the picture's name; those after the first have their number behind a dot.
    trained: the caption that the picture is trained with; caption: of the image, "" when nothing is left and none is
    made; size: (width, height), that of the picture's training bucket, the largest where it has several.
    """

    name: str
    picture: Path
    concept: str
    index: int
    trained: str
    caption: str
    size: tuple[int, int]


def training_part(data: DataConfig) -> DataConfig:
    """Return the dataset without its sources of regularization images."""
    return replace(data, sources=tuple(source for source in data.sources if not source.regularization))


def list_images(found: Scan, config: RunConfig, options: RegularizationConfig) -> tuple[RegImage, ...]:
    """Return every regularization image, in the order of the pictures, those without a caption included.

    found: a scan of `training_part(config.data)`. What an image gets is addressed by its name, so that neither the
    order of the sources nor other pictures change it. Raises ValueError for marks that are none (`option_problems`).
    """
    data = training_part(config.data)
    sizes: dict[int, tuple[int, int]] = {}
    for view in views(found, data):
        bucket = (view.placement.bucket.width, view.placement.bucket.height)
        sizes[view.item] = max(sizes.get(view.item, bucket), bucket, key=lambda size: size[0] * size[1])
    names, cuts = _names(found), _cuts(config, data, options)
    texts = _texts(config, options)
    return tuple(
        _image(item, (names[item.path], index), sizes[number], _Text(data, options, cuts[item.source], texts))
        for number, item in enumerate(found.items)
        for index in range(options.per_image)
    )


@dataclass(frozen=True)
class _Text:
    """What the caption of an image is made from. cut: of its source; texts: classes or words in their templates."""

    data: DataConfig
    options: RegularizationConfig
    cut: Cut
    texts: tuple[str, ...]


def _image(item: Item, place: tuple[str, int], size: tuple[int, int], text: _Text) -> RegImage:
    name, index = place
    options, settings = text.options, effective(text.data.caption, text.data.sources[item.source])
    still = replace(
        settings, shuffle=False, dropout=0.0, dropout_every_epochs=0, tag_dropout=0.0, warmup=0.0
    )  # the caption whole, as the file has it
    trained = vary(item.caption, still, _drawn(options, "caption", name, index), _FIRST)
    if options.prompts == "captions":
        caption = reduced.reduced(trained, text.cut, settings.emphasis) or options.when_empty.strip()
    elif text.texts:
        turn = (_drawn(options, "text", name) + index) % len(text.texts)
        caption = wildcards.resolve(text.texts[turn], _drawn(options, "template", name, index)).strip()
    else:
        caption = ""
    numbered = f"{name}.{index + 1}" if index else name
    return RegImage(numbered, item.path, item.concept, index, trained, caption, size)


def _drawn(options: RegularizationConfig, purpose: str, name: str, *position: int) -> int:
    return derive(options.seed, f"regularization {purpose} {name}", *position)


def seed_of(image: RegImage, options: RegularizationConfig, roll: int) -> int:
    """Return an image's seed, below 2³². roll: how often it was made anew because it was not good."""
    return _drawn(options, "image", image.name, roll) % _SEEDS


def _cuts(config: RunConfig, data: DataConfig, options: RegularizationConfig) -> list[Cut]:
    own = {_place(marks.path): marks.remove for marks in options.sources}
    return [
        reduced.cut(config.triggers, (*options.remove, *own.get(_place(source.path), ()))) for source in data.sources
    ]


def _place(path: str) -> str:
    return real(absolute(path)) if path.strip() else ""


def _texts(config: RunConfig, options: RegularizationConfig) -> tuple[str, ...]:
    if options.prompts == "captions":
        return ()
    words = tuple(text.strip() for text in options.texts if text.strip())
    if not words and options.prompts == "words":
        words = reduced.words_of(config.triggers)
    return tuple(template.replace("{}", word) for template in options.templates or ("{}",) for word in words)


def _names(found: Scan) -> dict[Path, str]:
    """Return the name of each picture's first image; pictures that differ in their ending alone keep it in the name.

    A face's place at the end of a name goes: the image has its face elsewhere.
    """
    folders = _folders(found.concepts)
    plain = {item.path: f"{folders[item.concept]}/{without_face(item.path.stem)}" for item in found.items}
    times = Counter(name.casefold() for name in plain.values())
    return {
        item.path: plain[item.path]
        if times[plain[item.path].casefold()] == 1
        else f"{folders[item.concept]}/{item.path.name}"
        for item in found.items
    }


def _folders(concepts: Sequence[Concept]) -> dict[str, str]:
    """Return each concept's folder: its name without numbers, which balancing changes, unless only they tell it apart."""
    taken: set[str] = set()
    folders = {}
    for concept in concepts:
        parts = [part for part in concept.name.split("/") if part]
        spelled = ("/".join(words_in_name(part).strip() or part for part in parts), "/".join(parts))
        name = next((each for each in spelled if each and each.casefold() not in taken), "") or f"set {len(taken) + 1}"
        taken.add(name.casefold())
        folders[concept.name] = name
    return folders


def weights(found: Scan, images: Sequence[RegImage]) -> dict[str, tuple[Concept, int, float]]:
    """Return for each folder of images: its concept, how many images it gets, and how often an epoch is to show each.

    As often that all of them together are shown as often as the concept's own pictures.
    """
    made = [image for image in images if image.caption]
    counts = Counter(image.concept for image in made)
    folders = {image.concept: image.name.rpartition("/")[0] for image in made}
    return {
        folders[concept.name]: (
            concept,
            counts[concept.name],
            whole(min(max(concept.exposures / counts[concept.name], 0.001), MAXIMUM_REPEATS)),
        )
        for concept in found.concepts
        if counts[concept.name]
    }


def option_problems(config: RunConfig, options: RegularizationConfig, folder: Path) -> Iterator[Problem]:
    """Yield what stands against settings and folder before any picture is looked at."""
    yield from reduced.mark_problems(options.remove, "regularization.remove")
    known = {_place(source.path): source for source in training_part(config.data).sources}
    for index, marks in enumerate(options.sources):
        where = f"regularization.sources[{index}]"
        yield from reduced.mark_problems(marks.remove, f"{where}.remove")
        if _place(marks.path) not in known:
            text = f"{marks.path!r} is no source of training pictures."
            names = ", ".join(source.path for source in known.values()) or "none"
            yield Problem("error", f"{where}.path", text, f"Give one of: {names}.")
    if options.prompts != "captions" and not _texts(config, options):
        text = "is empty, so there is nothing to make images of."
        fix = "Name the class, such as 1girl." if options.prompts == "class" else "Name the words: the trigger is one."
        yield Problem("error", "regularization.texts", text, fix)
    target = Path(real(absolute(str(folder))))
    for place, source in known.items():
        if place and (target.is_relative_to(place) or Path(place).is_relative_to(target)):
            text = f"{printable(target)} and the training pictures of {source.path} lie in each other."
            yield Problem("error", "out", text, "Choose a folder beside them for the regularization images.")


def image_problems(
    found: Scan, images: Sequence[RegImage], config: RunConfig, options: RegularizationConfig
) -> Iterator[Problem]:
    """Yield what stands against the images, or has to be known: empty captions, triggers, weights, sizes."""
    empty = [image for image in images if not image.caption]
    if empty:
        text = f"nothing is left of {len(empty)} captions, so they get no image: {_named(empty)}."
        fix = "Leave less out, or say what such images show when nothing is left (when_empty)."
        yield Problem("error" if len(empty) == len(images) else "warning", "regularization.remove", text, fix)
    times_named = Counter(image.name.casefold() for image in images)
    twice = [image for image in images if times_named[image.name.casefold()] > 1]
    if twice:
        text = f"{len(twice)} images would have the name of another one: {_named(twice)}."
        yield Problem("error", "regularization.per_image", text, "Rename those pictures, or set it to 1.")
    for trigger in config.triggers:
        calling = [image for image in images if reduced.contains(image.caption, trigger)] if trigger.strip() else []
        if calling:
            text = f"{len(calling)} captions still contain {trigger!r}, which ties it to what is preserved: "
            yield Problem("warning", "regularization.remove", f"{text}{_named(calling)}.", "Leave those tags out too.")
    for folder, (concept, count, times) in weights(found, images).items():
        text = f"{count} images stand against {concept.exposures:g} exposures of {concept.name} in an epoch: "
        if times > concept.repeats:
            fix = f"Raise the images per picture (per_image) from {options.per_image}, or leave fewer out."
            yield Problem("warning", folder, f"{text}each is shown {times:g} times, more often than a picture.", fix)
        elif times > 1:
            text += f"each is shown {times:g} times, as often as a picture; "
            text += f"more images per picture (per_image), up to {concept.repeats:g}, add variety."
            yield Problem("note", folder, text)
    resolutions = {source.resolution for source in training_part(config.data).sources}
    if len(resolutions) > 1:
        text = f"sources are trained at sizes of their own; the images are at {config.data.resolution}, as one source."
        yield Problem("note", "data.resolution", text)


def _named(images: Sequence[RegImage], shown: int = 3) -> str:
    names = ", ".join(image.name for image in images[:shown])
    return f"{names} and {len(images) - shown} more" if len(images) > shown else names
