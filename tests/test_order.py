"""The order of an epoch: every exposure once, batches of one size, the same on every machine."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.buckets import Bucket, Placement
from lib_lora_trainer.dataset.order import Example, batches_per_epoch, epoch_batches

SIZES = (Bucket(512, 512), Bucket(448, 576), Bucket(576, 448))


def placed(choice):
    bucket = SIZES[choice]
    return Placement(bucket, (bucket.width, bucket.height), (0, 0), (bucket.width, bucket.height))


@settings(max_examples=100, deadline=None)
@given(
    pictures=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=20),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 50),
    flip=st.booleans(),
)
def test_every_exposure_occurs_once(pictures, batch_size, seed, epoch, flip):
    placements = [placed(choice) for choice, _ in pictures]
    repeats = [count for _, count in pictures]
    data = DataConfig(flip=flip)
    batches = epoch_batches(placements, repeats, data, batch_size, seed, epoch)
    shown = Counter((example.item, example.exposure) for batch in batches for example in batch.examples)
    assert shown == {(item, exposure): 1 for item, count in enumerate(repeats) for exposure in range(count)}
    assert len(batches) == batches_per_epoch(placements, repeats, batch_size)
    assert all(placements[example.item].bucket == batch.bucket for batch in batches for example in batch.examples)
    assert all(1 <= len(batch.examples) <= batch_size for batch in batches)
    for bucket in SIZES:  # at most one short batch per size
        assert sum(batch.bucket == bucket and len(batch.examples) < batch_size for batch in batches) <= 1
    assert batches == epoch_batches(placements, repeats, data, batch_size, seed, epoch)
    assert flip or not any(example.flipped for batch in batches for example in batch.examples)


def test_batches_of_two_sizes_by_hand():
    # 512²: 3 × 2 = 6 exposures → 2 batches of 4 and 2; 448×576: 5 → 4 and 1.
    placements, repeats = [placed(0), placed(0), placed(0), placed(1)], [2, 2, 2, 5]
    assert batches_per_epoch(placements, repeats, 4) == 4
    batches = epoch_batches(placements, repeats, DataConfig(), 4, 1, 0)
    assert sorted((batch.bucket, len(batch.examples)) for batch in batches) == [
        (SIZES[1], 1),
        (SIZES[1], 4),
        (SIZES[0], 2),
        (SIZES[0], 4),
    ]


def test_epochs_and_seeds_differ_and_buckets_mix():
    placements, repeats = [placed(index % 3) for index in range(30)], [2] * 30
    orders = {
        (seed, epoch): epoch_batches(placements, repeats, DataConfig(), 2, seed, epoch)
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    widths = [batch.bucket.width for batch in orders[1, 0]]
    assert widths != sorted(widths)
    assert [example.item for batch in orders[1, 0] for example in batch.examples] != sorted(list(range(30)) * 2)


def test_the_order_is_pinned_so_that_old_runs_resume():
    batches = epoch_batches([placed(0)] * 4, [1, 1, 2, 1], DataConfig(flip=True), 2, seed=7, epoch=3)
    assert [[(e.item, e.exposure, e.flipped) for e in batch.examples] for batch in batches] == PINNED


PINNED = [[(3, 0, False)], [(1, 0, True), (2, 0, False)], [(2, 1, False), (0, 0, True)]]


def test_flips_are_half_and_change_no_order():
    placements, repeats = [placed(0)] * 50, [20] * 50
    plain = epoch_batches(placements, repeats, DataConfig(), 4, 1, 0)
    flipped = epoch_batches(placements, repeats, DataConfig(flip=True), 4, 1, 0)
    shares = [example.flipped for batch in flipped for example in batch.examples]
    assert 400 < sum(shares) < 600  # 1000 fair draws: mean 500, deviation 16
    unflipped = [(b.bucket, tuple(Example(e.item, False, e.exposure) for e in b.examples)) for b in flipped]
    assert [(batch.bucket, batch.examples) for batch in plain] == unflipped


def test_one_picture_and_none():
    assert epoch_batches([], [], DataConfig(), 4, 1, 0) == ()
    assert batches_per_epoch([], [], 4) == 0
    (batch,) = epoch_batches([placed(0)], [1], DataConfig(), 4, 1, 0)
    assert batch.examples == (Example(0, False, 0),)


def test_mistakes_raise():
    with pytest.raises(ValueError, match="batch_size is 0"):
        epoch_batches([placed(0)], [1], DataConfig(), 0, 1, 0)
    with pytest.raises(ValueError, match="argument"):
        batches_per_epoch([placed(0)], [1, 2], 1)
