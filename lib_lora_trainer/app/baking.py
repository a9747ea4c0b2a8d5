"""Bake: block weights, a weight or a rebase into a new adapter file that needs no extension."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lib_lora_trainer.adapters import existing
from lib_lora_trainer.adapters.keys import file_key
from lib_lora_trainer.adapters.targets import Target
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Saved
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.files import check_name
from lib_lora_trainer.hosts.api import Host, Needs
from lib_lora_trainer.save import weights as adapter_files
from lib_lora_trainer.workshop import bake, elements, presets, vectors
from lib_lora_trainer.workshop.bake import Draft, Weights
from lib_lora_trainer.workshop.places import family_of, outside, place_of


@dataclass(frozen=True)
class Request:
    """What is asked for.

    blocks: a preset's name, a vector or blocks, "" for all at 1; elements: an elemental preset or directives, "" for
    none; unet, text: weights on top; rebase: the strength that becomes 1. family: "" to read it off the file.
    presets, element_presets: files in lora-block-weight's format, the last one counts. seed, x: of R and U, and of X.
    """

    file: Path
    output: Path
    blocks: str = ""
    elements: str = ""
    unet: float = 1.0
    text: float = 1.0
    rebase: float = 1.0
    family: Family | None = None
    presets: tuple[Path, ...] = ()
    element_presets: tuple[Path, ...] = ()
    seed: int = 0
    x: float = 1.0
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """What baking would do. metadata: the old file's; notes: what the user should know of it."""

    request: Request
    draft: Draft
    metadata: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of it, for JSON."""
        draft = self.draft
        return {
            "file": str(self.request.file),
            "output": str(self.request.output),
            "family": draft.family,
            **draft.weights.facts,
            **draft.counts,
            "needs_checkpoint": list(draft.needs_base),
            "notes": list(self.notes),
        }


def plan(request: Request) -> Plan:
    """Return what baking would do; nothing is written.

    Raises ConfigError for weights that cannot be read and for an output that exists, DataError for a file that cannot.
    """
    _check_output(request)
    tensors = existing.read(request.file)
    metadata = _metadata(request.file)
    family = request.family or family_of(tensors, metadata, {name: tuple(each.shape) for name, each in tensors.items()})
    weights = Weights(_vector(request, family), _directives(request), request.unet, request.text, request.rebase)
    made = bake.draft(tensors, weights)
    return Plan(request, made, metadata, tuple(_notes(request, made)))


def run(settled: Plan, host: Host | None = None) -> Iterator[Event]:
    """Write the new file, read it back and compare it; yields what happens.

    host: has the model whose weights DoRA, OFT and BOFT need. Raises ConfigError when these need one and there is none,
    DataError when a layer is not in the model or the file read back differs from what was written.
    """
    started = time.monotonic()
    request, draft = settled.request, settled.draft
    for text in settled.notes:
        yield Note("note", text)
    needed = draft.needs_base
    if needed and host is None:
        raise ConfigError(
            f"{len(needed)} layers are DoRA or rotations (OFT, BOFT), e.g. {needed[0]}: a multiple of them depends on the "
            "model's weights. Name the checkpoint with --checkpoint."
        )
    yield Phase("baking", 0, len(draft.layers))
    if needed and host is not None:
        if host.info().family != draft.family:
            raise ConfigError(
                f"the adapter is for {draft.family}, the checkpoint is {host.info().family}. Use another."
            )
        with host.lease(Needs()) as lease:
            tensors = bake.bake(draft, _finder(lease.targets(), draft.family))
        yield Note("note", f"{len(needed)} layers are written as differences of the weights of {host.info().title}.")
    else:
        tensors = bake.bake(draft)
    yield Phase("baking", len(draft.layers), len(draft.layers))
    _check_output(request)
    metadata = bake.metadata(settled.metadata, draft, request.output.stem, request.file.name)
    adapter_files.write(request.output, tensors, metadata)
    _compare(request.output, tensors)
    yield Saved(str(request.output), "adapter", 0, 0)
    yield Finished("done", 1, (str(request.output),), time.monotonic() - started)


def _check_output(request: Request) -> None:
    output = request.output
    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: adapters are .safetensors files. Write {output.stem}.safetensors.")
    check_name(output.stem, "output")
    if output.exists() and output.samefile(request.file):
        raise ConfigError(f"{output}: is the file that is read. Choose another name; the old file is kept.")
    if output.exists() and not request.overwrite:
        raise ConfigError(f"{output}: exists already. Choose another name, or add --overwrite.")


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def _vector(request: Request, family: Family) -> vectors.Vector:
    if not request.blocks.strip():
        return vectors.flat(1.0, family)
    draws = vectors.Draws(request.seed, request.x)
    return presets.choose(request.blocks, family, presets.read_all(request.presets), draws)


def _directives(request: Request) -> elements.Directives:
    if not request.elements.strip():
        return ()
    return elements.choose(request.elements.strip(), elements.read_all(request.element_presets))


def _notes(request: Request, made: Draft) -> Iterator[str]:
    vector = made.weights.vector
    short = vectors.lengths(made.family)[0]
    rest = bake.beyond(made.family)
    left_out = bake.in_blocks(made, rest)
    if request.blocks and left_out and not any(vector.of(block) for block in rest):
        yield (
            f"{left_out} layers are in blocks that {short} numbers do not name, such as the first and the resampling "
            f"convolutions: they get 0. Write {vectors.lengths(made.family)[1]} numbers to keep them."
        )
    apart = outside(place_of(key, made.family) for key in made.layers)
    if request.blocks and apart:
        yield f"{apart} layers are in no block (time embedding, output): block weights leave them alone."
    if made.rest:
        yield "The embeddings in the file are kept as they are."


def _finder(targets: Any, family: Family) -> Callable[[str], Target]:
    """Return the lookup of a layer by its key in a file, whether ldm or diffusers named it."""

    def address(key: str) -> tuple[str, str]:
        return key.split("_", 2)[1], place_of(key, family).name

    known = {address(file_key(target.layer, family)): target for target in targets}

    def find(key: str) -> Target:
        found = known.get(address(key))
        if found is None:
            raise DataError(f"{key}: is not in the checkpoint. Choose a checkpoint of the adapter's family.")
        return found

    return find


def _compare(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    there = existing.read(path)
    wrong = [
        name
        for name in tensors.keys() | there.keys()
        if name not in there or name not in tensors or not _same(there[name], tensors[name])
    ]
    if wrong:
        raise DataError(f"{path}: {min(wrong)} read back differs from what was written. Check the disk and bake again.")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8))
