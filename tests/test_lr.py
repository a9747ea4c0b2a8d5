"""Learning-rate schedules: equal to sd-scripts', to the papers' formulas, and well-behaved everywhere."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.config.optimizer import SCHEDULES, OptimizerConfig
from lib_lora_trainer.train import lr

REFERENCE = json.loads((Path(__file__).parent / "reference" / "schedules.json").read_text(encoding="utf-8"))
FALLING = ("linear", "cosine", "polynomial", "rex")
ENDS = (*FALLING, "cosine-restarts", "annealed-cosine")


def settings() -> st.SearchStrategy[OptimizerConfig]:
    return st.builds(
        OptimizerConfig,
        schedule=st.sampled_from(SCHEDULES),
        warmup=st.one_of(st.just(0.0), st.floats(0, 0.999), st.integers(1, 5000).map(float)),
        cycles=st.integers(1, 20),
        cycle_decay=st.floats(0.01, 1),
        cycle_warmup=st.floats(0, 0.9),
        minimum=st.floats(0, 1),
        power=st.floats(0.1, 10),
    )


@pytest.mark.parametrize("case", REFERENCE["cases"])
def test_equal_to_sd_scripts_at_equal_progress(case):
    """sd-scripts takes a step's value at its beginning, the loop at its middle: the only difference."""
    config = OptimizerConfig(**REFERENCE["cases"][case]["settings"])
    steps, theirs = REFERENCE["steps"], REFERENCE["cases"][case]["factors"]
    assert len(theirs) == steps == 60
    ours = [lr.factor(config, step / steps, steps) for step in range(steps)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_references_cover_what_sd_scripts_has():
    covered = {each["settings"]["schedule"] for each in REFERENCE["cases"].values()}
    assert covered == {"constant", "linear", "cosine", "cosine-restarts", "polynomial"}  # rex, annealed-cosine: ours
    assert REFERENCE["commit"].startswith("48d368f")


def test_rex_is_the_paper_s():
    config = OptimizerConfig(schedule="rex")
    # (1 - z) / (1/2 + (1 - z)/2) at z = 0, 1/4, 1/2, 3/4, 1
    expected = [1.0, 0.75 / 0.875, 0.5 / 0.75, 0.25 / 0.625, 0.0]
    assert [lr.factor(config, z, 100) for z in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(expected)
    assert lr.factor(replace(config, minimum=0.2), 0.5, 100) == pytest.approx(0.2 + 0.8 * 2 / 3)


def test_restarts_fall_to_the_minimum_and_begin_lower():
    config = OptimizerConfig(schedule="cosine-restarts", cycles=4, cycle_decay=0.5, minimum=0.2)
    beginnings = [lr.factor(config, quarter / 4, 100) for quarter in range(4)]
    assert beginnings == pytest.approx([1.0, 0.5, 0.25, 0.2])  # an eighth would be below the minimum
    assert [lr.factor(config, quarter / 4 - 1e-6, 100) for quarter in (1, 2, 3, 4)] == pytest.approx([0.2] * 4)
    assert lr.factor(config, 1.0, 100) == pytest.approx(0.2)
    assert lr.factor(config, 0.125, 100) == pytest.approx(0.6)
    assert lr.factor(config, 0.375, 100) == pytest.approx(0.35)


def test_annealed_cosine_rises_in_every_cycle():
    config = OptimizerConfig(schedule="annealed-cosine", cycles=2, cycle_decay=0.5, cycle_warmup=0.2, minimum=0.1)
    places = (0.0, 0.05, 0.1, 0.3, 0.5 - 1e-7, 0.5, 0.55, 0.6, 0.8, 1.0)
    expected = [0.1, 0.55, 1.0, 0.55, 0.1, 0.1, 0.3, 0.5, 0.3, 0.1]
    assert [lr.factor(config, place, 100) for place in places] == pytest.approx(expected, abs=1e-6)


def test_a_warm_up_takes_the_place_of_the_first_rise():
    config = OptimizerConfig(schedule="annealed-cosine", cycles=2, cycle_warmup=0.5, warmup=0.2)
    around = [lr.factor(config, place, 100) for place in (0.1, 0.2 - 1e-9, 0.2, 0.4)]
    assert around == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert [lr.factor(config, place, 100) for place in (0.6, 0.7, 0.8)] == pytest.approx([0.0, 0.5, 1.0], abs=1e-9)


def test_warm_up_in_steps_or_as_a_share():
    share, steps = OptimizerConfig(schedule="cosine", warmup=0.1), OptimizerConfig(schedule="cosine", warmup=20.0)
    for place in (0.0, 0.03, 0.0999, 0.1, 0.5, 1.0):
        assert lr.factor(share, place, 200) == pytest.approx(lr.factor(steps, place, 200))
    assert lr.warmup_share(OptimizerConfig(warmup=1.0), 200) == 1 / 200
    # The first of 20 steps, asked at its middle, has a fortieth.
    assert lr.factor(steps, 0.5 / 200, 200) == pytest.approx(1 / 40)
    longer = OptimizerConfig(schedule="cosine", warmup=500.0)
    assert [lr.factor(longer, place, 200) for place in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]


@given(settings(), st.floats(-2, 3), st.integers(1, 10_000))
def test_factors_lie_between_0_and_1(config, progress, steps):
    factor = lr.factor(config, progress, steps)
    assert 0.0 <= factor <= 1.0
    assert factor == lr.factor(config, min(max(progress, 0.0), 1.0), steps)
    if config.warmup == 0:
        assert factor >= config.minimum


@given(settings(), st.integers(2, 10_000))
def test_ends(config, steps):
    share = lr.warmup_share(config, steps)
    if share < 0.99:
        last = config.minimum if config.schedule in ENDS else 1.0
        assert lr.factor(config, 1.0, steps) == pytest.approx(last, abs=1e-9)
    starts_low = config.schedule == "annealed-cosine" and config.cycle_warmup > 0
    first = 0.0 if share else config.minimum if starts_low else 1.0
    assert lr.factor(config, 0.0, steps) == pytest.approx(first, abs=1e-9)
    if 0 < share < 0.99:
        assert lr.factor(config, share, steps) == pytest.approx(1.0, abs=1e-9)


@given(settings(), st.floats(0, 1), st.floats(0, 0.1))
def test_falling_schedules_fall(config, progress, further):
    share = lr.warmup_share(config, 1000)
    one, two = lr.factor(config, progress, 1000), lr.factor(config, progress + further, 1000)
    if config.schedule in (*FALLING, "constant") and progress >= share:
        assert two <= one + 1e-12
    elif progress + further <= share:
        assert two >= one


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.13])
@pytest.mark.parametrize("cycles", [1, 3])
def test_curves_have_no_jumps_but_restarts(schedule, warmup, cycles):
    config = OptimizerConfig(schedule=schedule, warmup=warmup, cycles=cycles, cycle_decay=0.7, minimum=0.1, power=2.0)
    count = 20_000
    curve = [lr.factor(config, place / count, 500) for place in range(count + 1)]
    jumps = [place for place in range(count) if abs(curve[place + 1] - curve[place]) > 3e-3]
    expected = cycles - 1 if schedule == "cosine-restarts" else 0
    assert len(jumps) == expected
    for number, place in enumerate(jumps, start=1):
        assert place / count == pytest.approx(warmup + (1 - warmup) * number / cycles, abs=1e-4)
    assert not any(math.isnan(value) for value in curve)
