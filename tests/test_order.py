"""The order of a run: every exposure once, batches of one size, fair rotation, the same on every machine."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.dataset.buckets import Bucket, Placement
from lib_lora_trainer.dataset.exposures import rotation
from lib_lora_trainer.dataset.order import Example, Length, epoch_batches, length, mine, steps
from lib_lora_trainer.dataset.views import View

SIZES = (Bucket(512, 512), Bucket(448, 576), Bucket(576, 448))


def placed(choice):
    bucket = SIZES[choice]
    return Placement(bucket, (bucket.width, bucket.height), (0, 0), (bucket.width, bucket.height))


def seen(choice=0, repeats=1, item=0, **details):
    return View(item, placed(choice), repeats, **details)


def many(count, repeats=1, first=0, **details):
    return [seen(0, repeats, first + index, **details) for index in range(count)]


def shown(views, epoch, data=None, seed=1):
    """Return how often an epoch shows each view."""
    batches = epoch_batches(views, data or DataConfig(), 3, seed, epoch)
    counts = Counter(example.view for batch in batches for example in batch.examples)
    return [counts[index] for index in range(len(views))]


def config(views=None, data=None, **training):
    return RunConfig(data=data or DataConfig(), training=TrainingConfig(**training))


@settings(max_examples=100, deadline=None)
@given(
    pictures=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=20),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(1, 50),
    flip=st.booleans(),
)
def test_every_exposure_occurs_once(pictures, batch_size, seed, epoch, flip):
    views = [seen(choice, count, index, mirrored=flip) for index, (choice, count) in enumerate(pictures)]
    batches = epoch_batches(views, DataConfig(), batch_size, seed, epoch)
    found = Counter((example.view, example.exposure) for batch in batches for example in batch.examples)
    assert found == {(view, exposure): 1 for view, (_, count) in enumerate(pictures) for exposure in range(count)}
    assert all(views[example.view].placement.bucket == batch.bucket for batch in batches for example in batch.examples)
    assert all(1 <= len(batch.examples) <= batch_size for batch in batches)
    for bucket in SIZES:  # at most one short batch per size
        assert sum(batch.bucket == bucket and len(batch.examples) < batch_size for batch in batches) <= 1
    assert batches == epoch_batches(views, DataConfig(), batch_size, seed, epoch)
    assert flip or not any(example.flipped for batch in batches for example in batch.examples)


def test_buckets_smaller_than_the_batch_are_kept():
    # 512²: 3 × 2 = 6 exposures → 2 batches of 4 and 2; 448×576: 5 → 4 and 1; 576×448: a single picture.
    views = [seen(0, 2, 0), seen(0, 2, 1), seen(0, 2, 2), seen(1, 5, 3), seen(2, 1, 4)]
    batches = epoch_batches(views, DataConfig(), 4, 1, 1)
    assert sorted((batch.bucket, len(batch.examples)) for batch in batches) == [
        (SIZES[1], 1),
        (SIZES[1], 4),
        (SIZES[0], 2),
        (SIZES[0], 4),
        (SIZES[2], 1),
    ]


def test_epochs_and_seeds_differ_and_buckets_mix():
    views = [seen(index % 3, 2, index) for index in range(30)]
    orders = {(seed, epoch): epoch_batches(views, DataConfig(), 2, seed, epoch) for seed in (1, 2) for epoch in (1, 2)}
    assert len(set(orders.values())) == 4
    widths = [batch.bucket.width for batch in orders[1, 1]]
    assert widths != sorted(widths)
    assert [example.view for batch in orders[1, 1] for example in batch.examples] != sorted(list(range(30)) * 2)


def test_the_order_is_pinned_so_that_old_runs_resume():
    views = [seen(0, count, index, mirrored=True) for index, count in enumerate((1, 1, 2, 1))]
    batches = epoch_batches(views, DataConfig(), 2, seed=7, epoch=3)
    assert [[(e.view, e.exposure, e.flipped) for e in batch.examples] for batch in batches] == PINNED


PINNED = [[(3, 0, False)], [(1, 0, True), (2, 0, False)], [(2, 1, False), (0, 0, True)]]


def test_flips_are_half_change_no_order_and_belong_to_each_view():
    plain = epoch_batches(many(50, 20), DataConfig(), 4, 1, 1)
    flipped = epoch_batches(many(50, 20, mirrored=True), DataConfig(), 4, 1, 1)
    shares = [example.flipped for batch in flipped for example in batch.examples]
    assert 400 < sum(shares) < 600  # 1000 fair draws: mean 500, deviation 16
    unflipped = [(b.bucket, tuple(Example(e.view, False, e.exposure) for e in b.examples)) for b in flipped]
    assert [(batch.bucket, batch.examples) for batch in plain] == unflipped
    mixed = epoch_batches([*many(5, 20), *many(5, 20, 5, mirrored=True)], DataConfig(), 4, 1, 1)
    assert {e.view >= 5 for b in mixed for e in b.examples if e.flipped} == {True}


def test_one_picture_none_and_a_wrong_batch_size():
    assert epoch_batches([], DataConfig(), 4, 1, 1) == ()
    (batch,) = epoch_batches([seen()], DataConfig(), 4, 1, 1)
    assert batch.examples == (Example(0, False, 0),)
    assert list(steps([], config())) == []
    assert length([], config(accumulation=0)) == Length(0, 0, 0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        epoch_batches([seen()], DataConfig(), 0, 1, 1)


def test_fractions_by_hand():
    # A half: each picture in every second epoch, and half of the folder in each.
    halves = many(4, 0.5, concept="a")
    odd, even = shown(halves, 1), shown(halves, 2)
    assert sum(odd) == sum(even) == 2
    assert [a + b for a, b in zip(odd, even, strict=True)] == [1, 1, 1, 1]
    assert shown(halves, 3) == odd
    # 2.5: twice each, and half of them a third time.
    assert sorted(shown(many(4, 2.5, concept="a"), 1)) == [2, 2, 3, 3]
    # A single picture begins in the first epoch: ⌈0.4⌉, ⌈0.8⌉, ⌈1.2⌉, ⌈1.6⌉, ⌈2⌉ are 1, 1, 2, 2, 2.
    assert [shown(many(1, 0.4, concept="a"), epoch) for epoch in range(1, 6)] == [[1], [0], [1], [0], [0]]
    assert len({tuple(shown(halves, 1, seed=seed)) for seed in range(20)}) > 3


@settings(max_examples=60, deadline=None)
@given(
    folders=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4000)), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    epochs=st.integers(1, 30),
)
def test_fractions_give_every_picture_its_due(folders, seed, epochs):
    views, owners = [], []
    for number, (count, thousandths) in enumerate(folders):
        views += many(count, thousandths / 1000, len(views), concept=str(number))
        owners += [number] * count
    rotated = rotation(views, DataConfig(), seed)
    totals = [0] * len(views)
    for epoch in range(1, epochs + 1):
        totals = [total + count for total, count in zip(totals, rotated.counts(epoch), strict=True)]
        for number, (count, thousandths) in enumerate(folders):
            mine_ = [total for total, owner in zip(totals, owners, strict=True) if owner == number]
            assert sum(mine_) == -(-count * epoch * thousandths // 1000)  # ⌈n·e·r⌉
            assert max(mine_) - min(mine_) <= 1
            assert all(abs(total - epoch * thousandths / 1000) < 1 for total in mine_)


def regularized(training, regularization, repeats=1, reg_repeats=1):
    return [*many(training, repeats), *many(regularization, reg_repeats, training, regularization=True)]


def test_surplus_regularization_images_are_used():
    views = regularized(training=4, regularization=10)
    totals = Counter()
    for epoch in range(1, 6):
        counts = shown(views, epoch)
        assert counts[:4] == [1] * 4
        assert sum(counts[4:]) == 4
        totals += Counter({view: count for view, count in enumerate(counts) if view >= 4})
        if epoch == 3:  # 12 exposures of 10 pictures: all of them, two twice
            assert sorted(totals.values()) == [1] * 8 + [2] * 2
    assert set(totals.values()) == {2} and len(totals) == 10
    assert len({tuple(shown(views, 1, seed=seed)) for seed in range(9)}) > 3


def test_too_few_regularization_images_are_repeated_evenly():
    views = regularized(training=10, regularization=3, repeats=2)
    totals = Counter()
    for epoch in range(1, 4):
        counts = shown(views, epoch)[10:]
        assert sum(counts) == 20 and max(counts) - min(counts) == 1
        totals += Counter(dict(enumerate(counts)))
    assert set(totals.values()) == {20}


def test_own_repeats_of_regularization_images_stay_shares():
    views = [*many(30), *many(5, 3, 30, regularization=True), *many(5, 1, 35, regularization=True)]
    totals = Counter()
    for epoch in range(1, 3):
        totals += Counter(dict(enumerate(shown(views, epoch))))
    assert [totals[view] for view in range(30, 40)] == [9] * 5 + [3] * 5  # 60 exposures, 3 : 1


def test_unbalanced_regularization_follows_its_own_repeats():
    data = DataConfig(balance_regularization=False)
    assert shown(regularized(4, 3, 2, 5), 1, data) == [2] * 4 + [5] * 3


@settings(max_examples=60, deadline=None)
@given(
    training=st.lists(st.sampled_from([0.5, 1, 2, 2.25]), min_size=1, max_size=6),
    regularization=st.lists(st.sampled_from([0.5, 1, 3]), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_balanced_epochs_show_as_many_of_both(training, regularization, seed):
    views = [seen(0, repeats, index, concept="t") for index, repeats in enumerate(training)]
    views += [
        seen(index % 3, repeats, 100 + index, regularization=True, concept="r")
        for index, repeats in enumerate(regularization)
    ]
    rotated = rotation(views, DataConfig(), seed)
    for epoch in range(1, 12):
        counts = rotated.counts(epoch)
        assert sum(counts[: len(training)]) == sum(counts[len(training) :])
    assert rotated.counts(3) == rotated.counts(3 + rotated.period)
    assert rotated.counts(1) == rotated.counts(1 + 2 * rotated.period)
    everything = Counter()
    for epoch in range(1, rotated.period + 1):
        everything += Counter(dict(enumerate(rotated.counts(epoch))))
    assert all(everything[view] > 0 for view in range(len(views)))


@st.composite
def runs(draw):
    views = [
        seen(draw(st.integers(0, 2)), draw(st.sampled_from([0, 0.5, 1, 1, 2, 3])), index, concept=str(index % 2),
             regularization=draw(st.sampled_from([False, False, True])))
        for index in range(draw(st.integers(1, 12)))
    ]  # fmt: skip
    run = RunConfig(
        data=DataConfig(balance_regularization=draw(st.booleans())),
        training=TrainingConfig(
            epochs=draw(st.integers(1, 25)),
            batch_size=draw(st.integers(1, 4)),
            accumulation=draw(st.integers(1, 3)),
            max_steps=draw(st.sampled_from([0, 0, 1, 2, 7, 40, 1000])),
            seed=draw(st.integers(0, 9)),
        ),
    )
    return views, run, draw(st.integers(1, 3))


@settings(max_examples=150, deadline=None)
@given(run=runs())
def test_the_length_is_what_iterating_gives(run):
    views, settings_, processes = run
    taken = list(steps(views, settings_, processes))
    found = length(views, settings_, processes)
    assert (found.steps, found.images) == (len(taken), sum(step.images for step in taken))
    if taken and settings_.training.max_steps == len(taken):
        assert found.epochs == taken[-1].epoch


def test_a_long_run_is_counted_without_being_walked(monkeypatch):
    views = many(5000, 3)
    asked = []
    original = type(rotation(views, DataConfig(), 1)).counts
    monkeypatch.setattr("lib_lora_trainer.dataset.exposures.Rotation.counts",
                        lambda self, epoch: asked.append(epoch) or original(self, epoch))  # fmt: skip
    found = length(views, config(epochs=100_000, batch_size=4))
    assert (found.images, found.steps) == (15_000 * 100_000, 3750 * 100_000)
    assert asked == [1]


def test_steps_gather_batches_and_count():
    views = many(10)  # batches of 3, 3, 3, 1
    run = config(epochs=2, batch_size=3, accumulation=3)
    found = list(steps(views, run))
    assert [(step.number, step.epoch, step.last_of_epoch, len(step.batches)) for step in found] == [
        (1, 1, False, 3), (2, 1, True, 1), (3, 2, False, 3), (4, 2, True, 1),
    ]  # fmt: skip
    assert [step.first_image for step in found] == [0, found[0].images, 10, 10 + found[2].images]
    assert all(one.first_image + one.images == two.first_image for one, two in pairwise(found))
    assert [step.number for step in steps(views, config(epochs=2, batch_size=3, max_steps=3))] == [1, 2, 3]


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (2, 3), (3, 2), (4, 1)])
def test_processes_share_the_steps_that_one_would_do_alone(processes, accumulation):
    views = [seen(index % 3, 3, index, mirrored=True) for index in range(9)]
    shared = config(epochs=2, batch_size=2, accumulation=accumulation)
    alone = replace(shared, training=replace(shared.training, accumulation=accumulation * processes))
    assert list(steps(views, shared, processes)) == list(steps(views, alone))
    assert length(views, shared, processes) == length(views, alone)
    for step in steps(views, shared, processes):
        parts = [mine(step, rank, processes) for rank in range(processes)]
        assert all(len(part) <= accumulation for part in parts)
        assert sorted((placed for part in parts for placed in part), key=lambda each: each[0]) == list(mine(step, 0, 1))
        positions = [first + index for part in parts for first, batch in part for index in range(len(batch.examples))]
        assert sorted(positions) == list(range(step.first_image, step.first_image + step.images))
