"""What holds for every trial, and for every picture that is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from lib_lora_trainer.evaluate.findings import judge  # noqa: E402
from lib_lora_trainer.evaluate.pick import Cell, Trial, choose, gain, quality, rate  # noqa: E402

SHARE = st.floats(0, 1, allow_nan=False).map(lambda number: round(number, 2))


def values(count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(SHARE, min_size=count, max_size=count).map(tuple)


@st.composite
def trials(draw) -> Trial:
    count = draw(st.integers(1, 5))

    def one(label: str, step: int, weight: float) -> Cell:
        return Cell(
            label, step, step, weight,
            recall=draw(values(count)), control=draw(values(count)), bleed=draw(values(count)),
            defects=draw(values(2 * count)), copies=draw(values(count)), change=draw(st.floats(0, 60)),
        )  # fmt: skip

    cells = tuple(one(f"m{step}", step, weight) for step in range(1, draw(st.integers(2, 4))) for weight in (0.5, 1.0))
    return Trial(one("", 0, 0.0), cells, ceiling=draw(st.floats(0.5, 1)))


@given(trials())
@settings(max_examples=60)
def test_any_trial_gets_a_verdict_with_its_best_cells_in_range(trial):
    verdict = judge(trial)
    if verdict.length == "no-effect":
        assert verdict.choice is None
        return
    choice = verdict.choice
    found = choice.qualities[trial.cells.index(choice.cell)]
    assert choice.lowest <= choice.cell.weight <= choice.highest
    assert found.tied and found.value >= max(each.value for each in choice.qualities) * 0.9 - 1e-9
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in choice.qualities)
    # No tied cell is of an earlier epoch, but such as have learned too little where another has not.
    tied = [cell for cell, each in zip(trial.cells, choice.qualities, strict=True) if each.tied]
    learned = [cell for cell in tied if sum(cell.recall) / len(cell.recall) >= 0.7 * trial.ceiling]
    assert choice.cell.step == min(cell.step for cell in learned or tied)
    assert verdict.why and all(finding.text for finding in verdict.findings)


@given(trials())
@settings(max_examples=30)
def test_the_order_of_the_cells_does_not_matter(trial):
    turned = replace(trial, cells=trial.cells[::-1])
    first, second = choose(trial), choose(turned)
    assert (first.cell, first.lowest, first.highest) == (second.cell, second.lowest, second.highest)


@given(trials())
@settings(max_examples=30)
def test_damage_never_makes_a_cell_better(trial):
    cell = trial.cells[0]
    worse = replace(
        cell,
        control=tuple(each / 2 for each in cell.control),
        bleed=tuple(min(1.0, each + 0.3) for each in cell.bleed),
        defects=tuple(1.0 for _ in cell.defects),
    )
    assert quality(trial, worse) <= quality(trial, cell) + 1e-12


@given(st.integers(1, 64).flatmap(values))
def test_rates_hold_their_mean_and_more_images_say_more(shares):
    found = rate(shares)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    twice = rate(shares * 2)
    assert twice.high - twice.low <= found.high - found.low + 1e-12
    nothing = gain(shares, shares)
    assert nothing.mean == 0 and not nothing.more and not nothing.less


@given(st.integers(1, 30).flatmap(lambda count: st.tuples(values(count), values(count))))
def test_a_gain_turned_round_is_a_loss(pair):
    one, other = pair
    there, back = gain(one, other), gain(other, one)
    assert there.mean == pytest.approx(-back.mean) and there.low == pytest.approx(-back.high)
