"""A set of an adapter's blocks, and how it is written: as block weights, as a preset, and as the setting for training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.workshop import vectors
from lib_lora_trainer.workshop.places import place_of

_EMBEDDING = "bundle_emb"


@dataclass(frozen=True)
class FileBlocks:
    """What a file has. names: its blocks in the model's order; outside: whether it has layers in no block as well."""

    family: Family
    names: tuple[str, ...]
    outside: bool

    def vector(self, chosen: Collection[str]) -> vectors.Vector:
        """Return the weights with which these blocks act and no other; blocks that the file lacks get 0 as well."""
        return vectors.from_blocks(dict.fromkeys(chosen, 1.0), self.family)

    def weights(self, chosen: Collection[str]) -> str:
        """Return the block weights as an image's are recorded: a number for every block, "" for all that the file has."""
        return "" if set(chosen) == set(self.names) else vectors.write(self.vector(chosen))

    def preset(self, chosen: Collection[str]) -> str:
        """Return the block weights as lora-block-weight writes them: 12 or 17 numbers where these name all that is on."""
        vector = self.vector(chosen)
        short, full = vectors.lengths(self.family)
        named = blocks.ORDERS[short]
        return vectors.write(vector, short if all(block in named for block in chosen) else full)

    def training(self, chosen: Collection[str]) -> str:
        """Return the value of the setting `adapter.blocks` with which these blocks are trained and no other.

        Names and ranges, `IN04-05,MID`, which speak of the UNet alone; numbers where the file has layers of text encoders
        and they are not to be trained, since only a vector's first number says so.
        """
        if blocks.BASE in self.names and blocks.BASE not in chosen:
            return self.preset(chosen)
        return named(chosen, self.family)


def of_file(path: Path, family: Family) -> FileBlocks:
    """Return the blocks of an adapter file, read off its header.

    Raises DataError when the file cannot be read or has no layer in any block.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            keys = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as an adapter ({error}). Choose a .safetensors file.") from error
    found = {place_of(key, family).block for key in keys if key != _EMBEDDING}
    inside = tuple(block for block in blocks.names(family) if block in found)
    if not inside:
        raise DataError(f"{path}: has no layer in any block of {family}. Choose an adapter with some.")
    return FileBlocks(family, inside, blocks.OUTSIDE in found)


def named(chosen: Collection[str], family: Family) -> str:
    """Return blocks as names and ranges that `adapters.blocks.parse` reads: `BASE,IN04-05,MID,OUT03`.

    A range names blocks of one kind that follow each other in the model, all of them chosen.
    """
    known = blocks.names(family)
    runs: list[list[str]] = []
    for block in (each for each in known if each in chosen):
        before = runs[-1][-1] if runs else block
        if known.index(block) == known.index(before) + 1 and _kind(block) == _kind(before):
            runs[-1].append(block)
        else:
            runs.append([block])
    return ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1].removeprefix(_kind(run[-1]))}" for run in runs)


def _kind(block: str) -> str:
    return block.rstrip("0123456789")
