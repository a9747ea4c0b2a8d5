"""What is measured of blocks, and the search for the smallest set, against values worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.evaluate import blocks, blocks_search
from lib_lora_trainer.evaluate.blocks import Analysis, Cell
from lib_lora_trainer.evaluate.blocks_style import LEVELS, drift, style

NAMES = ("A", "B", "C", "D", "E", "F")


def noise(seed: int, size=(64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(40, 200, (*size, 3), dtype=np.uint8))


def test_style_tells_colours_and_texture_and_not_places():
    image = noise(1)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert drift(image, mirrored) == pytest.approx(0, abs=1e-9)
    brighter = Image.fromarray(np.asarray(image) + np.uint8(10))
    assert drift(image, brighter) == pytest.approx(10, abs=0.2)  # rounding of YCbCr
    flat = Image.new("RGB", image.size, tuple(int(each) for each in np.asarray(image).mean(axis=(0, 1))))
    assert drift(image, flat) > 20


def test_the_spreads_of_a_channel_add_up_to_its_variance():
    image = noise(2, (48, 80))
    numbers = style(image)
    channels = np.asarray(image.convert("YCbCr"), np.float64)
    assert numbers[:3] == pytest.approx(channels.mean(axis=(0, 1)))
    spreads = numbers[3:].reshape(LEVELS + 1, 3)
    assert (spreads**2).sum(axis=0) == pytest.approx(channels.var(axis=(0, 1)))


def test_a_checkerboard_is_all_in_the_finest_octave():
    board = np.indices((32, 32)).sum(axis=0) % 2 * 100
    numbers = style(Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8)))
    assert numbers[3] == pytest.approx(50) and not numbers[6::3].any()
    assert style(Image.new("RGB", (5, 3), (7, 7, 7)))[0] == pytest.approx(7)  # too small for an octave of 16


def cell(names, recall, changes=(0.0, 0.0), drifts=(1.0,)) -> Cell:
    return Cell(tuple(names), tuple(recall), tuple(drifts), *changes)


def analysis(value) -> Analysis:
    """Return what a recall that is a function of the set of blocks gives, in two equal images."""
    every = frozenset(NAMES)

    def at(chosen) -> Cell:
        return cell(sorted(chosen), [value(frozenset(chosen))] * 2)

    return Analysis(
        NAMES, at(()), at(every), {each: at(every - {each}) for each in NAMES}, {each: at({each}) for each in NAMES}
    )


def shapley(value) -> dict[str, float]:
    """Return Shapley's values by their definition: the mean over all orders of what a block adds."""
    from math import factorial

    found = {}
    for block in NAMES:
        others = [each for each in NAMES if each != block]
        found[block] = sum(
            factorial(size)
            * factorial(5 - size)
            / factorial(6)
            * (value(frozenset({*some, block})) - value(frozenset(some)))
            for size in range(6)
            for some in combinations(others, size)
        )
    return found


def test_shares_are_shapleys_where_blocks_act_in_pairs():
    alone = dict(zip(NAMES, (0.1, 0.05, 0.2, 0.0, 0.02, 0.1), strict=True))
    pairs = {frozenset("AB"): 0.2, frozenset("CD"): -0.05, frozenset("EF"): 0.08}

    def value(some: frozenset[str]) -> float:
        return 0.1 + sum(alone[each] for each in some) + sum(each for pair, each in pairs.items() if pair <= some)

    found = {row.block: row.share for row in blocks.rows(analysis(value))}
    whole = value(frozenset(NAMES)) - value(frozenset())
    assert found == pytest.approx({block: each / whole for block, each in shapley(value).items()})
    assert sum(found.values()) == pytest.approx(1)


def test_rows_say_what_is_lost_and_brought_and_rank_by_both():
    full, base = cell(NAMES[:2], (1.0, 0.8), drifts=(4.0, 6.0)), cell((), (0.0, 0.2), drifts=(0.0, 0.0))
    off = {"A": cell("B", (0.5, 0.3), (9, 7), (1.0, 2.0)), "B": cell("A", (1.0, 0.8), (9, 1), (4.0, 6.0))}
    alone = {"A": cell("A", (0.4, 0.6), (5, 9), (2.0, 2.0)), "B": cell("B", (0.0, 0.2), (3, 9), (0.0, 1.0))}
    first, second = blocks.rows(Analysis(("A", "B"), base, full, off, alone))
    assert (first.block, second.block) == ("A", "B")
    assert (first.lost.mean, first.brought.mean) == pytest.approx((0.5, 0.4))
    assert not first.lost.more  # of two images that is no certainty
    assert first.share == pytest.approx(0.45 / 0.8) and second.share == 0
    assert (first.pixels_off, first.pixels_alone) == (7, 5)
    assert (first.drift_off, first.drift_alone) == pytest.approx((3.5, 2.0))


def test_equal_shares_are_ranked_by_pixels_then_by_place():
    base, full = cell((), (0.0,)), cell(NAMES[:3], (1.0,))
    off = {name: cell((), (1.0,), (0, pixels)) for name, pixels in (("A", 2.0), ("B", 5.0), ("C", 2.0))}
    alone = {name: cell((), (0.0,)) for name in "ABC"}
    assert [row.block for row in blocks.rows(Analysis(("A", "B", "C"), base, full, off, alone))] == ["B", "A", "C"]


@pytest.mark.parametrize(
    ("some", "full", "base", "share"),
    [
        ((0.5,), (0.9,), (0.1,), 0.5),
        ((0.1,), (0.9,), (0.1,), 0),
        ((0.3,), (0.3,), (0.3,), 1),
        ((0.2,), (0.3,), (0.3,), 0),
    ],
)
def test_kept_is_a_share_of_what_the_adapter_adds(some, full, base, share):
    assert blocks.kept(some, full, base) == pytest.approx(share)
    if full > base and share >= 0.5:  # the stricter measure: so much of the recall itself is kept, too
        assert some[0] >= share * full[0]


def answered(ranked, keep, value, fresh=None) -> tuple[blocks_search.Smallest, list[blocks_search.Question]]:
    """Run a search whose answers are a function of the set."""
    asked = []
    asking = blocks_search.smallest(ranked, keep)
    answer = None
    while True:
        try:
            question = next(asking) if answer is None else asking.send(answer)
        except StopIteration as end:
            return end.value, asked
        asked.append(question)
        answer = (fresh or value)(question.blocks) if question.fresh else value(question.blocks)


def test_the_search_finds_the_only_set_that_will_do():
    wanted = frozenset("BE")  # ranked badly, so that halving alone would end with five
    found, asked = answered(NAMES, 0.9, lambda some: 1.0 if wanted <= some else len(wanted & some) * 0.4)
    assert frozenset(found.blocks) == wanted and found.blocks == ("B", "E")
    assert (found.share, found.fresh) == (1.0, 1.0) and found.without == {"B": 0.4, "E": 0.4}
    assert len(asked) == len(set(asked)) == len(found.answers)


def test_a_block_that_could_not_go_is_tried_again_when_others_are_gone():
    # F can go only once A has gone: the recall is no sum.
    def value(some: frozenset[str]) -> float:
        return float("B" in some and not ("A" in some and "F" not in some))

    found, _ = answered(("A", "B", "C", "D", "E", "F"), 0.9, value)
    assert found.blocks == ("B",)


def test_what_is_found_keeps_enough_and_is_minimal_whatever_the_recall_is():
    for seed in range(60):
        generator = np.random.default_rng(seed)
        tables = [
            {frozenset(some): float(generator.random()) for size in range(7) for some in combinations(NAMES, size)}
            for _ in range(2)
        ]
        keep = float(generator.uniform(0.2, 0.95))
        found, asked = answered(NAMES, keep, tables[0].get, tables[1].get)
        chosen = frozenset(found.blocks)

        def enough(some, tables=tables, keep=keep) -> bool:
            return all(table[some] >= keep for table in tables)

        if len(chosen) < len(NAMES):
            assert enough(chosen) and (found.share, found.fresh) == tuple(table[chosen] for table in tables)
        if len(chosen) > 1:
            assert not any(enough(chosen - {block}) for block in chosen)
            assert set(found.without) == set(chosen) and max(found.without.values()) < keep
        assert len(asked) == len(set(asked))


def test_what_other_seeds_do_not_confirm_is_repaired():
    # By the first images A will do; by the others C is needed as well.
    found, asked = answered(
        ("A", "B", "C"), 0.9, lambda some: float("A" in some), lambda some: float({"A", "C"} <= some)
    )
    assert found.blocks == ("A", "C") and found.fresh == 1.0
    assert blocks_search.Question(frozenset("A"), True) in asked
    assert answered(("A",), 0.9, lambda _: 0.0) == (blocks_search.Smallest(("A",), 1.0, 1.0, {}, ()), [])
