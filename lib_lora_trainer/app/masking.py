"""Masks that a person draws, and masks that a model makes: rembg, installed when somebody asks for it and never before.

rembg (MIT) is a maintained collection of background-removal models that run in the ONNX runtime. Here only its sessions
are used; its models lie where rembg looks for them, so that other programs share them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lib_lora_trainer import installer
from lib_lora_trainer.app import mask_packages
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, UserError
from lib_lora_trainer.base.events import Event, Finished, Note, Phase
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools import mask_files
from lib_lora_trainer.dataset.tools.kept import Remover, kept_remover
from lib_lora_trainer.dataset.tools.mask_check import Judged, judge
from lib_lora_trainer.dataset.tools.members import gather
from lib_lora_trainer.dataset.tools.operations import Proposal
from lib_lora_trainer.dataset.tools.options import MASK_MODELS
from lib_lora_trainer.dataset.tools.pictures import Shape, still_shape


def draft_drawn(request: Request, path: Path, grey: Image.Image) -> Draft:
    """Return the change of one picture's mask to a drawn one, brought to the picture's size; grey: 8-bit, any size.

    Raises ConfigError when the source has no folder for masks, DataError for what is no picture of the source.
    """
    dataset = gather(request.data, request.index)
    member = dataset.member(path)
    shape = still_shape(path) if member is not None else None
    if member is None or not isinstance(shape, Shape):
        raise DataError(f"{printable(path)}: is no picture of this folder that can be read. Open another one.")
    whole = grey.convert("L").resize(shape.size, Image.Resampling.BILINEAR)
    operations = tuple(mask_files.drawn(dataset, member, whole))
    return Draft("mask-draw", f"Drew the mask of {path.name}", dataset.root, (Proposal(path, operations),))


def verdict(grey: Image.Image, holes: float = 0.01) -> Judged:
    """Return what a mask is like. holes: share of the subject, 0 to 1, that may be enclosed dark."""
    return judge(grey.convert("L"), holes)


def missing(model: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what has to be installed before a model can make masks, with its size; "" when all is there."""
    installed = installer.list_installed()
    names = ", ".join(f"{package.name} {package.version}" for package in mask_packages.lacking(installed))
    absent = [f"{names} (about {mask_packages.megabytes(installed)} MB)"] if names else []
    if not model_file(model, environment).is_file():
        absent.append(f"the model {model} ({MASK_MODELS[model][1]} MB, from github.com/danielgatis/rembg)")
    return " and ".join(absent)


def model_file(model: str, environment: Mapping[str, str] | None = None) -> Path:
    """Return where rembg keeps a model: in U2NET_HOME, else in .u2net below XDG_DATA_HOME or the home folder."""
    values = os.environ if environment is None else environment
    folder = values.get("U2NET_HOME") or str(Path(values.get("XDG_DATA_HOME", "~"), ".u2net"))
    return Path(folder).expanduser() / f"{model}.onnx"


def install(model: str, control: Control) -> Iterator[Event]:
    """Install rembg with what it lacks, change nothing that is there, and fetch a model.

    Raises UserError with pip's reason, or when the model cannot be fetched.
    """
    yield Phase("installing rembg", 0, 2)
    for line in mask_packages.install(os.environ):
        yield Note("note", line)
    importlib.invalidate_caches()
    if mask_packages.lacking(installer.list_installed()):
        raise UserError("rembg could not be installed; the lines above say why. Nothing else has changed.")
    if control.wish != "go":
        yield Finished("stopped", 1, (), 0.0)
        return
    yield Phase(f"fetching {model}", 1, 2)
    _session(model)
    yield Phase(f"fetching {model}", 2, 2)
    yield Finished("done", 2, (str(model_file(model)),), 0.0)


def remover(model: str, folder: Path) -> Remover:
    """Return a model at work whose masks are kept in a folder. Raises UserError when it is not installed."""
    absent = missing(model)
    if absent:
        text = f"Masks are made with {absent}, which is not installed."
        raise UserError(f"{text} Press “Install” to add it; on the command line: dataset mask FOLDER --install.")
    session = _session(model)

    def remove(image: Image.Image) -> Image.Image:
        made: Image.Image = _rembg().remove(image, session=session, only_mask=True)
        return made.convert("L")

    return kept_remover(remove, f"rembg {model}", folder)


def _rembg() -> Any:
    return importlib.import_module("rembg")


def _session(model: str) -> Any:
    if model not in MASK_MODELS:
        raise ConfigError(f"model: {model!r} is unknown. Choose one of: {', '.join(MASK_MODELS)}.")
    try:
        return _rembg().new_session(model)
    except (ImportError, OSError, ValueError) as error:
        text = f"The model {model} cannot be loaded: {error}."
        raise UserError(f"{text} Check the network, or put {model_file(model)} there yourself.") from error
