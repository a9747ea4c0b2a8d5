"""Initial values of adapters, drawn by LyCORIS: whoever knows its methods finds the same start here."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Shape
from lib_lora_trainer.base.errors import UserError

# The class that makes a method's values, by the method's family.
_CLASSES = {
    "low rank": ("locon", "LoConModule"),
    "hadamard": ("loha", "LohaModule"),
    "kronecker": ("lokr", "LokrModule"),
    "glora": ("glora", "GLoRAModule"),
    "dylora": ("dylora", "DyLoraModule"),
}

_OLDEST = 3  # tested are 3.4.0 and 4.1.3
INSTALL = (
    "Restart the WebUI without --skip-install so that the extension's installer adds it, or run: pip install "
    "--upgrade lycoris-lora."
)


def drawn(kind: str, shape: Shape, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the initial values that LyCORIS draws for a weight of this shape, by LyCORIS's names.

    They come from torch's CPU generator. options: of LyCORIS's module class. Only its constructor is used: of the
    arithmetic, 3.4.0's gradient of Tucker LoHa is wrong, LoHa and LoKr apply alpha twice when merged, dropout does
    nothing in most classes, and 4.x replaces it all by kernels of its own where triton can be imported.
    Raises UserError when lycoris-lora is missing or lacks the method.
    """
    module_class = _load(kind)
    size = shape[2] if len(shape) == 4 else 1
    stand_in: torch.nn.Module = (
        torch.nn.Conv2d(shape[1], shape[0], size, bias=False, device="meta")
        if len(shape) == 4
        else torch.nn.Linear(shape[1], shape[0], bias=False, device="meta")
    )
    module = module_class("adapter", stand_in, **options)
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def unfit() -> str:
    """Return what is wrong with the installed lycoris-lora, as a sentence; "" when nothing is known to be.

    It is not imported for that: bitsandbytes, which it imports, takes seconds to start.
    """
    if importlib.util.find_spec("lycoris") is None:
        return "lycoris-lora is not installed."
    try:
        version = importlib.metadata.version("lycoris-lora")
    except importlib.metadata.PackageNotFoundError:  # a copy of its sources
        return ""
    major = version.partition(".")[0]
    return f"lycoris-lora {version} is too old." if major.isdigit() and int(major) < _OLDEST else ""


def _load(kind: str) -> Any:
    os.environ.setdefault("LYCORIS_KERNEL_BACKEND", "torch")
    file, name = _CLASSES[kind]
    try:
        return getattr(importlib.import_module(f"lycoris.modules.{file}"), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"lycoris-lora cannot be imported or has no {name} ({error}). {INSTALL}") from error
