"""A checkpoint file as far as its header tells: tensor shapes, metadata, the yaml beside it, and the family."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.base.families import Family, Part

UNET = "model.diffusion_model."
VAE = "first_stage_model."
_HEADER_LIMIT = 100_000_000
_TRANSFORMERS = "cond_stage_model.transformer."
_OPEN_CLIP = "cond_stage_model.model."
TEXT_PREFIXES: dict[Family, dict[Part, str]] = {
    "sd1": {"te": _TRANSFORMERS},
    "sd2": {"te": _OPEN_CLIP},
    "sdxl": {"te1": "conditioner.embedders.0.transformer.", "te2": "conditioner.embedders.1.model."},
}
_USE_INSTEAD = "Choose a full SD1.x, SD2.x or SDXL checkpoint (.safetensors) instead."


@dataclass(frozen=True)
class CheckpointFile:
    """A single-file checkpoint with ldm's tensor names.

    shapes: of every tensor. metadata: the header's `__metadata__`. description: the content of the yaml of the same
    stem beside the file, as the WebUI reads it; empty without one.
    """

    path: Path
    family: Family
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    description: Mapping[str, Any]

    def model_parameters(self, *names: str) -> dict[str, Any]:
        """Return `model.params` of the yaml, or `params` of the first of its entries `names` that exists, else {}."""
        section = _parameters(self.description.get("model"))
        if not names:
            return section
        return next((_parameters(section[name]) for name in names if name in section), {})


def _parameters(section: Any) -> dict[str, Any]:
    found = section.get("params") if isinstance(section, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def read_checkpoint(path: Path) -> CheckpointFile:
    """Return what the header of a checkpoint and the yaml beside it say; no weight is read.

    Raises HostRefusal for a file that is not a whole SD1.x, SD2.x or SDXL checkpoint for text-to-image.
    """
    if not path.is_file():
        raise HostRefusal(f"Checkpoint {path}: there is no such file. Give the path of a .safetensors checkpoint.")
    if path.suffix.lower() != ".safetensors":
        raise HostRefusal(
            f"Checkpoint {path.name}: only .safetensors files are read, because {path.suffix or 'other'} files can run "
            "code when opened. Convert it, e.g. in the WebUI's Checkpoint Merger with 'No interpolation'."
        )
    tensors = _read_header(path)
    metadata = tensors.pop("__metadata__", {})
    shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    _refuse_quantized(path, {entry["dtype"] for entry in tensors.values()})
    family = _family(path, shapes)
    return CheckpointFile(path, family, shapes, metadata, _read_description(path.with_suffix(".yaml")))


def _read_header(path: Path) -> dict[str, Any]:
    # Format: 8 bytes of little-endian length, then that many bytes of JSON (safetensors README, "Format").
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError(f"header of {length} bytes")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        needed = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostRefusal(f"Checkpoint {path.name}: not a safetensors file ({error}). Download it again.") from error
    size = path.stat().st_size
    if size < needed:
        raise HostRefusal(
            f"Checkpoint {path.name}: the file is cut off after {size:,} of {needed:,} bytes. Download it again."
        )
    return dict(header)


def _refuse_quantized(path: Path, dtypes: set[str]) -> None:
    odd = sorted(dtypes - {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"})
    if odd:
        raise HostRefusal(
            f"Checkpoint {path.name}: it stores {', '.join(odd)} tensors, rounded too far to train against. "
            "Use its float16, bfloat16 or float32 version."
        )


def _family(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    def has(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in shapes)

    if has(f"{UNET}joint_blocks.", "joint_blocks.", f"{UNET}double_blocks.", "double_blocks."):
        raise HostRefusal(f"Checkpoint {path.name}: SD3 and Flux models are not supported. {_USE_INSTEAD}")
    if has("lora_unet_", "lora_te", "oft_unet_"):
        raise HostRefusal(f"Checkpoint {path.name}: this is an adapter (LoRA), not a checkpoint. {_USE_INSTEAD}")
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        raise HostRefusal(f"Checkpoint {path.name}: it has no UNet with the usual names ({UNET}…). {_USE_INSTEAD}")
    if len(first) != 4 or first[1] != 4:
        raise HostRefusal(
            f"Checkpoint {path.name}: its UNet takes {first[1]} channels instead of 4; it is made for inpainting or "
            "editing. Use the plain version of the model; the adapter then works with the inpainting one as well."
        )
    if has("conditioner.embedders.0.model."):
        raise HostRefusal(f"Checkpoint {path.name}: SDXL's refiner is not supported. Use the SDXL base model.")
    if not has(f"{VAE}encoder.") or not has(f"{VAE}decoder."):
        raise HostRefusal(f"Checkpoint {path.name}: it has no VAE ({VAE}…). Use a checkpoint with the VAE baked in.")
    for family, prefixes in TEXT_PREFIXES.items():
        if all(has(prefix) for prefix in prefixes.values()):
            return family
    raise HostRefusal(f"Checkpoint {path.name}: it lacks the text encoder, or one of SDXL's two. {_USE_INSTEAD}")


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HostRefusal(
            f"{path.name}, beside the checkpoint: no valid YAML: {error}. Correct or remove it."
        ) from error
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise HostRefusal(f"{path.name}, beside the checkpoint: it has no section 'model'. Correct or remove it.")
    return dict(content)
