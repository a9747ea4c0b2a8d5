"""Verdicts on curves drawn by hand: what is recommended, what is told, and what holds for any curve."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lib_lora_trainer.evaluate import pick
from lib_lora_trainer.evaluate.findings import Verdict, judge
from lib_lora_trainer.evaluate.pick import Cell, Trial, at_weight, choose, gain, quality, rate

IMAGES = 16


def shares(mean: float, count: int = IMAGES) -> tuple[float, ...]:
    """Return per-image shares of five tags whose mean is near to one, spread over two neighbouring values."""
    hits = round(mean * 5 * count)
    low, more = divmod(hits, count)
    return tuple((low + (number < more)) / 5 for number in range(count))


def flags(mean: float, count: int = IMAGES) -> tuple[float, ...]:
    return tuple(float(number < round(mean * count)) for number in range(count))


def cell(epoch: int, weight: float = 1.0, **means: float) -> Cell:
    """Return a cell of an epoch; what is not said is as in the base model."""
    usual = {"recall": 0.05, "control": 0.8, "bleed": 0.05, "defects": 0.0, "copies": 0.0, "change": 30.0}
    found = {**usual, **means}
    return Cell(
        label=f"m-{epoch:06d}",
        step=100 * epoch,
        epoch=epoch,
        weight=weight,
        recall=shares(found["recall"]),
        control=shares(found["control"]),
        bleed=shares(found["bleed"]),
        mixed=shares(found["mixed"]) if "mixed" in found else (),
        defects=flags(found["defects"], 3 * IMAGES),
        copies=flags(found["copies"]),
        change=found["change"],
        traits={"horns": found["recall"]},
    )


def trial(*cells: Cell, mixed: bool = False) -> Trial:
    base = replace(cell(0, 0.0, change=0.0, **({"mixed": 0.0} if mixed else {})), label="")
    return Trial(base, cells, ceiling=0.95)


def kinds(verdict: Verdict) -> set[str]:
    return {finding.kind for finding in verdict.findings}


def test_a_training_that_is_too_short_says_so_and_takes_the_last():
    verdict = judge(trial(cell(1, recall=0.06), cell(2, recall=0.2), cell(3, recall=0.42)))
    assert verdict.length == "too-short" and verdict.choice.cell.epoch == 3
    (finding,) = [each for each in verdict.findings if each.kind == "underbaked"]
    # 0.7 · 0.95 are enough; the shares of 16 images of five tags round 0.42 to 34/80.
    assert f"about {0.7 * 0.95 / (34 / 80):.1f} times as many epochs" in finding.fix
    assert "Underbaked" in finding.text and "overbaked" not in kinds(verdict)
    assert verdict.epochs == math.ceil(3 * 0.7 * 0.95 / (34 / 80)) == 5


def test_a_training_that_is_right_takes_the_earliest_of_the_good():
    verdict = judge(trial(*(cell(n + 1, recall=r) for n, r in enumerate((0.1, 0.5, 0.9, 0.91, 0.92)))))
    assert verdict.length == "right" and verdict.choice.cell.epoch == 3
    assert verdict.findings == () and verdict.epochs is None
    assert any("earlier epoch is taken" in text for text in verdict.why)


def test_of_what_is_tied_the_file_that_has_learned_is_chosen():
    # Where traits come without the trigger as well, qualities are low and close: the unlearned file does least harm.
    cells = [cell(1, recall=0.34, bleed=0.25), cell(4, recall=0.85, bleed=0.7), cell(12, recall=0.95, bleed=0.83)]
    found = choose(trial(*cells))
    assert [each.tied for each in found.qualities[:2]] == [True, True]
    assert found.cell.epoch == 4
    assert choose(trial(*cells[:1])).cell.epoch == 1, "where none has learned enough, the best there is"


def test_what_has_not_been_learned_is_not_trained_too_long_for_coming_unasked():
    early = judge(trial(cell(1, recall=0.4, bleed=0.38)))
    assert early.length == "too-short" and "overbaked" not in kinds(early)
    assert judge(trial(cell(1, recall=0.9, bleed=0.8))).length == "too-long"
    assert judge(trial(cell(1, recall=0.1, defects=0.6))).length == "too-long", "spoiled images show no traits"


def test_a_tie_is_a_share_of_the_best():
    harmed = [cell(1, recall=0.75, bleed=0.78), cell(2, recall=0.75, bleed=0.7)]
    values = [quality(trial(*harmed), each) for each in harmed]
    assert values[1] - values[0] < 0.1 and values[0] < 0.9 * values[1]
    assert choose(trial(*harmed)).cell.epoch == 2


def test_a_training_that_is_too_long_takes_the_earlier_and_says_what_suffers():
    rising = (0.3, 0.85, 0.9, 0.9)
    control, bleed, damaged = (0.8, 0.8, 0.5, 0.2), (0.05, 0.05, 0.3, 0.6), (0.0, 0.0, 0.1, 0.5)
    cells = [
        cell(n + 1, recall=r, control=c, bleed=b, defects=d)
        for n, (r, c, b, d) in enumerate(zip(rising, control, bleed, damaged, strict=True))
    ]
    verdict = judge(trial(*cells))
    assert verdict.length == "too-long" and verdict.choice.cell.epoch == verdict.epochs == 2
    (finding,) = verdict.findings
    assert finding.kind == "overbaked" and "m-000004 at weight 1" in finding.text
    assert "obeys 60% less" in finding.text and "Use m-000002" in finding.fix and "2 epochs are enough" in finding.fix


def test_a_single_file_that_is_overbaked_works_at_a_lower_weight():
    cells = (
        cell(9, 0.4, recall=0.7),
        cell(9, 0.6, recall=0.88),
        cell(9, 0.8, recall=0.9, control=0.5, bleed=0.4),
        cell(9, 1.0, recall=0.9, control=0.2, bleed=0.6, defects=0.5),
    )
    verdict = judge(trial(*cells))
    assert verdict.length == "too-long" and verdict.choice.cell.weight == 0.6
    assert verdict.choice.highest == 0.6 and verdict.epochs is None, "which epoch would have been enough is not known"
    assert {"overbaked", "too-strong"} <= kinds(verdict)
    assert any("bake --rebase 0.6" in finding.fix for finding in verdict.findings)


def test_one_overbaked_cell_alone_is_still_called_so():
    verdict = judge(trial(cell(9, recall=0.9, control=0.2, bleed=0.6)))
    assert verdict.length == "too-long" and {"overbaked", "loses-control", "bleed"} <= kinds(verdict)


def test_bleeding_outfits_are_told_apart_from_bleeding_without_a_trigger():
    mixing = judge(trial(*(cell(n, recall=0.9, mixed=0.7) for n in (1, 2)), mixed=True))
    assert "outfits-bleed" in kinds(mixing) and "bleed" not in kinds(mixing)
    assert "70%" in next(each.text for each in mixing.findings if each.kind == "outfits-bleed")
    assert mixing.length == "right"  # all epochs do it alike: training less would not help
    clean = judge(trial(*(cell(n, recall=0.9, mixed=0.0) for n in (1, 2)), mixed=True))
    assert "outfits-bleed" not in kinds(clean) and clean.length == "right"
    bleeding = judge(trial(cell(1, recall=0.9, bleed=0.6)))
    assert "bleed" in kinds(bleeding) and "outfits-bleed" not in kinds(bleeding)


def test_no_effect_recommends_nothing():
    verdict = judge(trial(*(cell(n, change=0.0) for n in (1, 2, 3))))
    assert (verdict.length, verdict.choice, kinds(verdict)) == ("no-effect", None, {"no-effect"})
    assert verdict.epochs is None
    assert "learning rate" in verdict.findings[0].fix
    changed = judge(trial(*(cell(n, change=9.0) for n in (1, 2, 3))))
    assert changed.length == "too-short" and "captions have the trigger" in changed.findings[0].fix
    assert changed.epochs == 6, "twice as many"


def test_copying_is_found_and_a_cell_that_does_not_is_preferred():
    verdict = judge(trial(cell(1, recall=0.85), cell(2, recall=0.95, copies=0.6)))
    assert verdict.choice.cell.epoch == 1 and verdict.length == "too-long"
    only = judge(trial(cell(2, recall=0.95, copies=0.6)))
    assert "copying" in kinds(only)


def test_a_trait_that_never_comes_is_named():
    one = replace(cell(1, recall=0.8), traits={"aqua hair": 1.0, "horns": 0.1})
    (finding,) = judge(trial(one)).findings
    assert finding.kind == "trait-missing" and "horns (10%)" in finding.text and "aqua" not in finding.text


def test_few_images_are_said_and_a_large_difference_of_them_is_not_a_tie():
    few = [
        replace(cell(1), recall=each, control=(), bleed=(), defects=(), copies=()) for each in [(0.4, 0.2), (0.8, 1.0)]
    ]
    few[1] = replace(few[1], label="late", step=500, epoch=5)
    base = replace(few[0], label="", recall=(0.0, 0.0))
    verdict = judge(Trial(base, tuple(few)))
    assert verdict.choice.cell.label == "late" and "few-images" in kinds(verdict)


def test_a_much_better_cell_is_taken_also_where_chance_could_explain_it():
    early, late = (
        Cell(label, step, step, 1.0, recall=shown)
        for label, step, shown in (("a", 1, (0.9, 0.1, 0.2)), ("b", 2, (0.2, 1.0, 0.9)))
    )
    choice = choose(Trial(Cell("", 0, 0, 0.0, recall=(0.0,) * 3), (early, late)))
    assert choice.cell is late
    # The intervals overlap widely; only the size of the difference tells.
    assert choice.qualities[0].high > choice.qualities[1].low and not choice.qualities[0].tied


def test_the_usable_weights_are_those_around_the_best_one():
    recall = {0.2: 0.2, 0.4: 0.75, 0.6: 0.9, 0.8: 0.92, 1.0: 0.92, 1.2: 0.9}
    control = {1.2: 0.3}
    cells = [cell(3, weight, recall=r, control=control.get(weight, 0.8)) for weight, r in recall.items()]
    choice = choose(trial(*cells))
    assert (choice.cell.weight, choice.lowest, choice.highest) == (1.0, 0.4, 1.0)


def test_quality_by_hand():
    base = replace(cell(0, 0.0), recall=(0.0,) * 4, control=(0.8,) * 4, bleed=(0.1,) * 4, defects=(), copies=())
    one = replace(base, recall=(0.4,) * 4, control=(0.6,) * 4, bleed=(0.2,) * 4)
    # 0.4 / 0.8 · 0.6 / 0.8 · (1 - 0.1 / 0.8)
    assert quality(Trial(base, (one,), 0.8), one) == pytest.approx(0.5 * 0.75 * 0.875)


def test_intervals_by_hand():
    found = rate((1.0,) * 5 + (0.0,) * 5)
    # Wilson at 5 of 10, z = 1.645: 0.5 ± 1.645 / (1 + z²/10) · √(0.025 + z²/400)
    z = 1.645
    reach = z / (1 + z * z / 10) * math.sqrt(0.025 + z * z / 400)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach))
    assert (rate(()).low, rate(()).high) == (0.0, 1.0)
    more = gain((0.9, 0.7, 0.8, 1.0), (0.5, 0.5, 0.5, 0.5))
    # Student's t of 3 degrees at 95 % is 2.3534; differences 0.4, 0.2, 0.3, 0.5 have a deviation of 0.1291, but at
    # least 0.35 / 2 is assumed.
    assert more.mean == pytest.approx(0.35) and more.low == pytest.approx(0.35 - 2.3534 * 0.175 / 2, abs=2e-3)
    assert gain((0.5,), (0.0,)).more is False and gain((), ()).mean == 0.0
    with pytest.raises(ValueError, match="compared"):
        gain((1.0,), (1.0, 0.0))


@pytest.mark.parametrize(("freedom", "expected"), [(1, 6.3138), (2, 2.92), (3, 2.3534), (7, 1.8946), (30, 1.6973)])
def test_students_quantile_is_that_of_the_table(freedom, expected):
    assert pick._student(freedom) == pytest.approx(expected, abs=0.02)


def test_an_empty_trial_is_refused_and_the_usual_weight_is_the_nearest_to_one():
    with pytest.raises(ValueError, match="nothing"):
        choose(trial())
    cells = (cell(2, 0.6), cell(2, 1.2), cell(1, 0.8), cell(1, 0.4))
    assert [(each.epoch, each.weight) for each in at_weight(trial(*cells))] == [(1, 0.8), (2, 1.2)]
