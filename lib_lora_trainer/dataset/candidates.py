"""Which pictures of many may show the same: pairs whose hashes are near, found without comparing pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.dataset.looks import SIDE, WINDOWS, Look

FAR = 0.36  # of the bits; whole pictures further apart show different things, also when one is cropped
NEAR = 0.18  # of the bits; within it one picture is a window of the other
SAME_FRAME = 0.28  # of the bits, for pictures of the same framing in which something was changed
MOST = 0.55  # of what there is to see has to be in both of them
SHAPES = 1.25  # ratio of two pictures' shapes; crops of 10 % on one axis stay below
_ROWS = 512
_CELLS = 24  # of the grid on which the parts of two pictures are compared, each way
_BITS = np.array([byte.bit_count() for byte in range(256)], np.uint8)

Bits = NDArray[np.uint8]
Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Candidate:
    """Two pictures that may show the same. one, two: their numbers, one < two; mirrored: the second one is.

    window: the part of the one picture that the other shows, an index of `looks.WINDOWS`; within: whether it is a part
    of the first picture, otherwise of the second, as that one is stored.
    """

    one: int
    two: int
    mirrored: bool
    window: int
    within: bool


def find(looks: Sequence[Look], report: Callable[[int, int], None]) -> list[tuple[Candidate, ...]]:
    """Return the pairs worth a closer look, ordered by number: each as it is, in the mirror, or both ways.

    Every pair's hashes are compared, as products of matrices: 10,000 pictures are 50 million pairs and take seconds.
    report: called with (pictures compared with all others, pictures in all).
    """
    if len(looks) < 2:
        return []
    hashes = np.stack([look.hashes for look in looks])
    mirrored = np.stack([look.mirrored for look in looks])
    signs, other_signs = _signs(hashes[:, 0]), _signs(mirrored)
    shapes = np.log([look.width / look.height for look in looks])
    cells = np.stack([_cells(look) for look in looks])
    found: dict[tuple[int, int], list[Candidate]] = {}
    for start in range(0, len(looks), _ROWS):
        rows = slice(start, start + _ROWS)
        for flipped, seen in ((False, signs), (True, other_signs)):
            distances = (1 - signs[rows] @ seen.T / signs.shape[1]) / 2
            likely = (distances <= FAR) & (np.abs(shapes[rows, None] - shapes[None]) <= np.log(SHAPES))
            ones, twos = np.nonzero(likely)
            ones += start
            later = ones < twos
            ones, twos = ones[later], twos[later]
            whole = distances[ones - start, twos]
            seconds = mirrored if flipped else hashes[:, 0]
            _sift(ones, twos, whole, flipped, (hashes, seconds, cells), found)
        report(min(start + _ROWS, len(looks)), len(looks))
    return [tuple(found[pair]) for pair in sorted(found)]


def _sift(
    ones: Numbers,
    twos: Numbers,
    whole: NDArray[np.float32],
    flipped: bool,
    seen: tuple[Bits, Bits, NDArray[np.float32]],
    found: dict[tuple[int, int], list[Candidate]],
) -> None:
    """Keep the pairs that share a window or, in the same framing, most of what there is to see.

    whole: distances of the whole pictures; seen: hashes of all windows, hashes of the whole pictures (in the mirror if
    flipped), cells.
    """
    hashes, seconds, cells = seen
    nearest, window = whole.astype(np.float64), np.zeros(len(ones), np.intp)
    within = np.ones(len(ones), bool)
    for number in range(1, len(WINDOWS)):
        # If the second is the first one's window in a mirror, then in a mirror it is the window; and the same with
        # first and second exchanged. So windows in a mirror need no hashes of their own.
        for inside, outer, inner in ((True, ones, twos), (False, twos, ones)):
            distance = _distance(hashes[outer, number], seconds[inner])
            nearer = distance < nearest
            nearest[nearer], window[nearer], within[nearer] = distance[nearer], number, inside
    kept = nearest <= NEAR
    framed = ~kept & (whole <= SAME_FRAME)
    kept[framed] = _shared(cells[ones[framed]], cells[twos[framed]], flipped) >= MOST
    window[framed] = 0
    for place in np.nonzero(kept)[0]:
        pair = (int(ones[place]), int(twos[place]))
        found.setdefault(pair, []).append(Candidate(*pair, flipped, int(window[place]), bool(within[place])))


def _signs(hashes: Bits) -> NDArray[np.float32]:
    """Return bits as -1 and 1, so that a product of two rows counts the bits they share."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def _distance(some: Bits, others: Bits) -> NDArray[np.float64]:
    """Return the share of bits in which rows differ."""
    return _BITS[some ^ others].sum(axis=1, dtype=np.int64) / (8.0 * some.shape[1])


def _cells(look: Look) -> NDArray[np.float32]:
    """Return the grey picture as the means of 24×24 cells."""
    size = SIDE // _CELLS
    cells: NDArray[np.float32] = look.grey.reshape(_CELLS, size, _CELLS, size).mean(axis=(1, 3), dtype=np.float32)
    return cells


def _shared(some: NDArray[np.float32], others: NDArray[np.float32], flipped: bool) -> NDArray[np.float64]:
    """Return the share of the cells with anything in them that two pictures have in common: (pairs,) of 1."""
    if not len(some):
        return np.empty(0)
    others = others[:, :, ::-1] if flipped else others
    steep = np.maximum(_steepness(some), _steepness(others))
    filled = steep > 8  # grey levels from cell to cell
    alike = filled & (np.abs(some - others) < 0.3 * (4 + 0.5 * steep))
    share: NDArray[np.float64] = alike.sum(axis=(1, 2)) / np.maximum(filled.sum(axis=(1, 2)), 1)
    return share


def _steepness(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    down, across = np.gradient(cells, axis=(1, 2))
    steep: NDArray[np.float32] = np.hypot(down, across)
    return steep
