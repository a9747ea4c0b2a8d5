"""How dimensions are split: LoKr's two factors, and the blocks of OFT and BOFT."""

from __future__ import annotations

import math

from lib_lora_trainer.adapters.targets import Layer


def pair(dimension: int, factor: int) -> tuple[int, int]:
    """Return (small, large) with small · large = dimension, as LyCORIS's `factorization` splits.

    factor: that divisor if it is one, else the largest divisor up to it; -1: as near to the square root as possible.
    pair(320, -1) is (16, 20), pair(320, 8) is (8, 40), pair(320, 7) is (5, 64).
    """
    if factor > 0 and dimension % factor == 0:
        small = min(factor, dimension // factor)
    else:
        largest = math.isqrt(dimension) if factor < 0 else min(factor, math.isqrt(dimension))
        small = max((size for size in range(1, largest + 1) if dimension % size == 0), default=1)
    return small, dimension // small


def butterfly(dimension: int, size: int) -> tuple[int, int, int] | None:
    """Return BOFT's (factors, blocks, block size) of a dimension; None when it has none (odd dimensions).

    A block has an even size b with dimension = b · 2^p: then p + 1 factors of 2^p blocks each. The size is the largest
    up to `size`, as in LyCORIS; where no such size is that small (320 = 10 · 2^5 has none below 10) it is the smallest
    there is, while LyCORIS fails (test_boft_takes_the_next_block_size_where_the_wanted_one_is_impossible).
    """
    sizes = [dimension >> power for power in range(dimension.bit_length()) if dimension % (2 << power) == 0]
    if not sizes:
        return None
    block = max((each for each in sizes if each <= size), default=min(sizes))
    blocks = dimension // block
    return blocks.bit_length(), blocks, block


def shape_of(layer: Layer) -> tuple[int, ...]:
    """Return the shape of a layer's weight; groups of convolutions are not known here, and no SD model has any."""
    if layer.norm:
        return (layer.outputs,)
    kernel = (layer.kernel, layer.kernel) if layer.conv else ()
    return (layer.outputs, layer.inputs, *kernel)
