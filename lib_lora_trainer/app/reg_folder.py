"""The folder of regularization images: what stands there, from which settings, and how an image comes into it.

Each PNG carries the settings it was made from, so that a folder needs no other record: after a stop, a crash, an undo or
a copy to another machine it is known what is missing and what was made otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lib_lora_trainer.app.reg_images import RegImage, seed_of
from lib_lora_trainer.base.files import replacing, write_text
from lib_lora_trainer.captions import reduced
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.journal import FOLDER as JOURNAL
from lib_lora_trainer.dataset.journal import Journal
from lib_lora_trainer.dataset.tools import operations
from lib_lora_trainer.dataset.tools.operations import Operation
from lib_lora_trainer.hosts.api import ImageRequest, MadeImage, ModelInfo

FACTS = "lora-trainer regularization"
"""The PNG's text with what the image was made from, beside the WebUI's `parameters`."""

_ASKED = ("prompt", "negative", "seed", "steps", "guidance", "width", "height", "sampler", "clip_skip")

State = Literal["made", "missing", "changed", "own"]


@dataclass(frozen=True)
class Standing:
    """One image as it is wanted, and what of it stands in the folder.

    facts: what it is made from, as its PNG tells; roll: how often it was re-rolled.
    state: made; missing; changed: made from other settings, which `changed` names; own: a picture of the user's, which
    tells nothing. written: the caption file's text, None without one.
    """

    image: RegImage
    path: Path
    caption_path: Path
    request: ImageRequest
    facts: dict[str, Any]
    roll: int
    state: State
    changed: tuple[str, ...]
    written: str | None


@dataclass(frozen=True)
class Wish:
    """What images are made from besides their captions."""

    config: RunConfig
    options: RegularizationConfig
    model: ModelInfo

    def request(self, image: RegImage, roll: int) -> ImageRequest:
        """Return what the host is asked for."""
        options, caption = self.options, self.config.data.caption
        named = options.scheduler.strip() not in ("", "Automatic")
        return ImageRequest(
            prompt=reduced.as_prompt(image.caption, caption.emphasis),
            negative=options.negative,
            seed=seed_of(image, options, roll),
            steps=options.steps,
            guidance=options.guidance,
            width=image.size[0],
            height=image.size[1],
            sampler=f"{options.sampler} {options.scheduler.strip()}" if named else options.sampler,
            clip_skip=self.config.training.clip_skip,
        )

    def facts(self, image: RegImage, roll: int) -> dict[str, Any]:
        """Return what an image is made from, in JSON's types."""
        request = self.request(image, roll)
        return {
            **{name: getattr(request, name) for name in _ASKED},
            "caption": image.caption,
            "roll": roll,
            "model": self.model.name,
            "sha256": self.model.sha256,
            "vae": self.model.vae,
        }


def look(images: Sequence[RegImage], folder: Path, wish: Wish, again: frozenset[str]) -> tuple[Standing, ...]:
    """Return how each image stands in the folder. again: names of those that are to be made with another seed."""
    extension = caption_extension(wish.config.data.caption.extensions)
    return tuple(_look(image, folder, wish, image.name in again, extension) for image in images)


def _look(image: RegImage, folder: Path, wish: Wish, again: bool, extension: str) -> Standing:
    # Names may have dots of their own, which with_suffix would cut at.
    path, caption_path = folder / f"{image.name}.png", folder / f"{image.name}{extension}"
    before = read_facts(path) if path.is_file() else None
    roll = before["roll"] if before and isinstance(before.get("roll"), int) else 0
    written = caption_path.read_text(encoding="utf-8", errors="replace") if caption_path.is_file() else None
    standing = Standing(
        image, path, caption_path, wish.request(image, roll), wish.facts(image, roll), roll, "made", (), written
    )
    if again:
        standing = replace(standing, request=wish.request(image, roll + 1), facts=wish.facts(image, roll + 1))
        standing = replace(standing, roll=roll + 1)
    if not path.is_file():
        return replace(standing, state="missing")
    if before is None:
        return replace(standing, state="changed" if again else "own")
    changed = _differences(before, standing.facts)
    return replace(standing, state="changed", changed=changed) if changed else standing


def _differences(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the facts that differ; of the model its hash counts, its name where one has no hash."""
    hashed = bool(before.get("sha256")) and bool(now["sha256"])
    return tuple(
        name for name, value in now.items() if name != ("model" if hashed else "sha256") and before.get(name) != value
    )


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return what a PNG says it was made from; None for a picture that says nothing, or cannot be read."""
    try:
        with Image.open(path) as image:
            facts = json.loads(image.info.get(FACTS, "null"))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None
    return facts if isinstance(facts, dict) else None


def caption_extension(extensions: Sequence[str]) -> str:
    """Return the ending of the caption files: .txt if the dataset reads that, else its first one."""
    known = [f".{extension.strip().removeprefix('.')}" for extension in extensions if extension.strip(" .")]
    return ".txt" if ".txt" in known or not known else known[0]


def put(standing: Standing, made: MadeImage, journal: Journal) -> None:
    """Write an image and its caption: new files at once, those that replace others through the journal."""

    def content(path: Path) -> None:
        _save(path, made, standing.facts)

    caption = standing.image.caption
    stale = standing.written is not None and standing.written != caption
    if standing.state == "missing" and not stale:
        if standing.written is None:
            write_text(standing.caption_path, caption)  # first: an image without caption is trained with other words
        with replacing(standing.path) as temporary:
            content(temporary)
        return
    verb = operations.write if standing.state == "missing" else operations.replace
    changes = [verb(standing.path, content), *_caption_change(standing, stale)]
    for _ in journal.record("reg", f"Made {standing.image.name} anew", changes):
        continue


def _caption_change(standing: Standing, stale: bool) -> list[Operation]:
    def content(path: Path) -> None:
        path.write_bytes(standing.image.caption.encode("utf-8"))

    if standing.written is None:
        return [operations.write(standing.caption_path, content)]
    return [operations.replace(standing.caption_path, content)] if stale else []


def _save(path: Path, made: MadeImage, facts: dict[str, Any]) -> None:
    text = PngInfo()
    text.add_text("parameters", made.infotext)
    text.add_text(FACTS, json.dumps(facts))  # ASCII
    made.image.save(path, format="PNG", pnginfo=text)


def put_number(path: Path, number: float, journal: Journal) -> None:
    """Write a folder's `multiply.txt`, through the journal where another number stands; 1 needs no file."""
    text = f"{number}\n"

    def content(target: Path) -> None:
        target.write_bytes(text.encode("utf-8"))

    if not path.is_file():
        if number != 1:
            write_text(path, text)
    elif path.read_text(encoding="utf-8", errors="replace") != text:
        change = operations.replace(path, content)
        for _ in journal.record("reg", f"Set how often {path.parent.name} is shown", [change]):
            continue


def discard_leftovers(folder: Path) -> None:
    """Remove what a process left half written when it was killed; call it while the journal is open."""
    for leftover in folder.rglob(".writing-*"):
        if JOURNAL not in leftover.relative_to(folder).parts:
            leftover.unlink(missing_ok=True)


def strangers(folder: Path, images: Sequence[RegImage]) -> tuple[Path, ...]:
    """Return the images in the folder that were made here but belong to no training picture any more."""
    wanted = {folder / f"{image.name}.png" for image in images if image.caption}
    return tuple(path for path in listed(folder) if path not in wanted and read_facts(path) is not None)


def listed(folder: Path) -> tuple[Path, ...]:
    """Return every PNG below a folder in the order of their names, whoever made it; hidden ones are left out."""
    return tuple(sorted(_walk(folder), key=lambda path: path.relative_to(folder).parts))


def holds_any(folder: Path) -> bool:
    """Tell whether there is any image in a folder; looks no further than the first one."""
    return next(_walk(folder), None) is not None


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".png") and not name.startswith("."):
                yield Path(place, name)
