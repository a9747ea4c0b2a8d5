"""From a step to tensors: what is shown, with which crop, mask, weight and caption, whichever process loads it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.captions.variants import Moment, vary
from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.config.loss import LossConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.dataset import augment, order
from lib_lora_trainer.dataset.augment import Address
from lib_lora_trainer.dataset.buckets import Bucket, Placement, place
from lib_lora_trainer.dataset.faces import face_in
from lib_lora_trainer.dataset.pixels import load_pixels
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.views import views
from lib_lora_trainer.diffusion import noise
from lib_lora_trainer.hosts.api import PictureSize
from lib_lora_trainer.train.batches import Material, load, mine, size_of, steps
from lib_lora_trainer.train.cache import LatentCache, to_tensor
from picture_lease import PictureLease, Waiting


def draw(path, seed, size=(96, 64), caption="sks, red, tall, old, wet"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        draw(tmp_path / "set" / f"{number}_40_30_16_16.png", number, (64, 96) if number == 4 else (96, 64))
    return tmp_path / "set"


def run(folder, training=None, loss=None, **data):
    sources = data.pop("sources", (SourceConfig(str(folder), repeats=2),))
    plain = {"resolution": 64, "bucket_minimum": 32, "bucket_step": 8, "cache": "none"}
    return RunConfig(
        data=DataConfig(sources=sources, **{**plain, **data}),
        training=TrainingConfig(**{"epochs": 2, "batch_size": 3, **(training or {})}),
        loss=loss or LossConfig(),
    )


def material(config, lease=None, group=None, folder=None):
    found = scan(config.data, ("sks",))
    assert [problem for problem in found.problems if problem.severity == "error"] == []
    seen = views(found, config.data)
    latents = LatentCache(config.data, folder, lease or PictureLease(), config.loss.masked)
    list(latents.fill(found.items, seen, group or Waiting()))
    return Material(found.items, seen, latents, order.length(seen, config, group.count if group else 1))


def loaded(config, made=None, rank=0, count=1):
    """Return everything a process loads in the run, in order."""
    made = made or material(config)
    with made.latents:
        return [
            load(batch, step, first_image, made, config)
            for step in steps(made, config, count)
            for first_image, batch in mine(step, rank, count)
        ]


def by_position(batches):
    """Return each example's tensors, caption and size by its place in the run."""
    found = {}
    for batch in batches:
        for index, position in enumerate(batch.positions):
            found[position] = (
                batch.latents[index], batch.captions[index], batch.sizes[index], batch.weights[index].item(),
                batch.preserved[index].item(), batch.names[index],
            )  # fmt: skip
    return found


def same(one, two):
    return set(one) == set(two) and all(
        torch.equal(one[position][0], two[position][0]) and one[position][1:] == two[position][1:] for position in one
    )


VARIED = {"random_crop": True, "color": True, "flip": True, "face_crop_minimum": 1.0, "face_crop_maximum": 3.0}


def test_a_batch_is_what_its_pictures_give_with_addressed_draws(folder):
    config = run(folder, **VARIED)
    made = material(config)
    lease = PictureLease()
    for batch, example_batch in zip(loaded(config, made), all_batches(made, config), strict=True):
        for index, (position, example) in enumerate(zip(batch.positions, example_batch.examples, strict=True)):
            view = made.views[example.view]
            item = made.items[view.item]
            address = Address(1, position)
            face = face_in(item.path, item.width, item.height)
            assert face is not None
            placement = augment.crop(view.placement, face, config.data, address)
            shown = augment.color(load_pixels(item.path, placement), address)
            shown = shown[:, ::-1] if example.flipped else shown
            posterior = lease.encode_images(to_tensor(shown))
            drawn = noise.normal(posterior.mean.shape[1:], 1, "posterior", [position])
            assert torch.equal(batch.latents[index : index + 1], posterior.mean + posterior.std * drawn)
            assert batch.sizes[index] == size_of(placement, example.flipped)
            assert batch.names[index] == item.path.name


def all_batches(made, config):
    return [batch for step in order.steps(made.views, config) for batch in step.batches]


def test_augmentation_shows_every_exposure_differently_and_repeats_itself(folder):
    config = run(folder, sources=(SourceConfig(str(folder), repeats=8),), **VARIED)
    first = by_position(loaded(config))
    assert same(first, by_position(loaded(config)))
    crops = {(name, size.crop, size.target) for _, _, size, _, _, name in first.values()}
    assert len(crops) > 40
    other = replace(config, training=replace(config.training, seed=2))
    assert not same(first, by_position(loaded(other)))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_load_what_one_loads_with_more_accumulation(folder, cache, processes):
    config = run(folder, cache=cache, flip=True, training={"accumulation": 2, "text_encoder_until": 1.0})
    alone = replace(config, training=replace(config.training, accumulation=2 * processes))
    kept = folder.parent / "kept"
    one = by_position(loaded(alone, material(alone, folder=kept)))
    shared = {}
    for rank in range(processes):
        made = material(config, group=Waiting(rank, processes), folder=kept)
        part = by_position(loaded(config, made, rank, processes))
        assert not set(part) & set(shared)
        shared |= part
    assert sorted(one) == list(range(20))
    assert same(one, shared)


@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_run_that_begins_in_the_middle_loads_the_same(folder, start):
    config = run(folder, **VARIED)
    whole = by_position(loaded(config))
    made = material(config)
    with made.latents:
        rest = by_position(
            load(batch, step, first_image, made, config)
            for step in steps(made, config)
            if step.number > start
            for first_image, batch in mine(step, 0, 1)
        )
    assert rest and same(rest, {position: whole[position] for position in rest})


def test_the_crop_on_the_right_axis():
    # 1000×1000 in a 1152×896 bucket: scaled to 1152×1152, of which 256 rows are cut off, 128 of them above. sd-scripts
    # records (top 0, left 128).
    square = Placement(Bucket(1152, 896), (1152, 1152), (0, 128), (1000, 1000))
    assert size_of(square, False) == size_of(square, True) == PictureSize((1000, 1000), (128, 0), (896, 1152))
    # 1000×667 is placed in 640×384 as 640×427: 21 rows above; sd-scripts records (top 0, left 32).
    assert size_of(place(1000, 667, DataConfig()), False) == PictureSize((667, 1000), (21, 0), (384, 640))
    # The wide picture loses columns; what is missing at the left of the mirrored one is missing at the right here.
    wide = Placement(Bucket(512, 512), (701, 512), (94, 0), (1402, 1024))
    assert size_of(wide, False) == PictureSize((1024, 1402), (0, 94), (512, 512))
    assert size_of(wide, True) == PictureSize((1024, 1402), (0, 95), (512, 512))


def test_the_recorded_crop_is_the_one_that_is_seen(tmp_path):
    # Each column of the picture has its own grey, so the pixels tell where they were cut.
    ramp = np.broadcast_to(np.arange(0, 192, dtype=np.uint8)[None, :, None], (64, 192, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("x")
    config = run(
        tmp_path, sources=(SourceConfig(str(tmp_path), repeats=20),), bucket=False, random_crop=True, flip=True
    )
    lease = PictureLease()
    batches = loaded(config, material(config, lease))
    sizes = [size for batch in batches for size in batch.sizes]
    columns = [((pixels[0, 0, 0] + 1) * 127.5).round().int().tolist() for pixels in lease.encoded]
    assert len(columns) == len(sizes) == 40
    for seen, size in zip(columns, sizes, strict=True):
        mirrored = seen[0] > seen[-1]
        assert size.crop == (0, 191 - seen[0] if mirrored else seen[0])
        assert size.original == (64, 192) and size.target == (64, 64)
    assert len({size.crop for size in sizes}) > 15
    assert 0 < sum(seen[0] > seen[-1] for seen in columns) < 40


def test_weights_and_preservation_follow_the_sources(folder):
    draw(folder.parent / "reg" / "r.png", 9)
    draw(folder.parent / "kept" / "k.png", 10)
    sources = (
        SourceConfig(str(folder)),
        SourceConfig(str(folder.parent / "reg"), regularization=True),
        SourceConfig(str(folder.parent / "kept"), prior_preservation=True),
    )
    batches = loaded(run(folder, sources=sources, loss=LossConfig(prior_weight=0.25)))
    facts = {found[5]: found[3:5] for found in by_position(batches).values()}
    assert facts == {
        **{f"{number}_40_30_16_16.png": (1.0, False) for number in range(5)},
        "r.png": (0.25, False),
        "k.png": (1.0, True),
    }
    assert batches[0].weights.dtype == torch.float32 and batches[0].preserved.dtype == torch.bool
    names = [name for batch in batches for name in batch.names]
    assert names.count("r.png") == 2 * 6  # as many as the others in each of two epochs


@pytest.mark.parametrize("warmup", [0.5, 7.0])  # a share of the run, a number of steps
def test_captions_vary_by_source_address_and_moment(folder, warmup):
    sources = (SourceConfig(str(folder), prefix="own"),)
    captions = CaptionConfig(shuffle=True, keep_tokens=1, prefix="all", warmup=warmup)
    config = run(folder, sources=sources, caption=captions, training={"epochs": 4})
    made = material(config)
    assert made.length.images == 20
    placed = [(step, batch) for step in order.steps(made.views, config) for batch in step.batches]
    for step, batch in placed:
        found = load(batch, step, step.first_image, made, config)
        for caption, position in zip(found.captions, found.positions, strict=True):
            moment = Moment(position / 20, step.number - 1, made.length.steps, step.epoch)
            own = replace(captions, prefix="own")
            assert caption == vary("sks, red, tall, old, wet", own, derive(1, "caption", position), moment)
            assert caption.startswith("own, sks")
    assert len(set(by_position(loaded(config))[19][1].split(", "))) == 6  # all tags at the end


def test_masks_fill_up_with_ones_and_follow_the_crop(folder):
    masks = folder.parent / "masks"
    masks.mkdir()
    half = Image.new("L", (96, 64), 0)
    half.paste(255, (0, 0, 48, 64))
    half.save(masks / "0_40_30_16_16.png")
    sources = (SourceConfig(str(folder), masks=str(masks), flip=True),)
    config = run(folder, sources=sources, loss=LossConfig(masked=True), bucket=False, random_crop=True)
    batches = loaded(config)
    shown = set()
    for batch in batches:
        if "0_40_30_16_16.png" not in batch.names:
            assert batch.masks is None
            continue
        assert batch.masks.shape == (len(batch.names), 1, 8, 8) and batch.masks.dtype == torch.float32
        for mask, name in zip(batch.masks, batch.names, strict=True):
            if name != "0_40_30_16_16.png":
                assert (mask == 1).all()
            else:
                shown.add(tuple(mask[0, 0].tolist()))
                assert 0 < mask.mean() < 1
    assert len(shown) > 1
    unmasked = replace(config, loss=LossConfig())
    assert all(batch.masks is None for batch in loaded(unmasked))


def test_several_resolutions_train_each_picture_at_each(folder):
    config = run(folder, more_resolutions=(96,), cache="memory", training={"epochs": 1, "batch_size": 8})
    batches = loaded(config)
    assert {tuple(batch.latents.shape[1:]) for batch in batches} == {(4, 6, 10), (4, 10, 6), (4, 10, 14), (4, 14, 10)}
    assert sum(len(batch.names) for batch in batches) == 5 * 2 * 2
    assert all(batch.latents.shape[0] == len(batch.captions) for batch in batches)


def test_pictures_are_decoded_ahead_only_for_this_process_and_errors_come_through(folder):
    config = run(folder, training={"accumulation": 1})
    made = material(config, group=Waiting(1, 2))
    with made.latents:
        iterator = steps(made, config, 2)
        step = next(iterator)
        ((first_image, batch),) = mine(step, 1, 2)
        load(batch, step, first_image, made, config)
        step = next(iterator)
        for item in made.items:
            item.path.unlink()
        with pytest.raises(DataError, match=r"\.png: does not exist any more"):
            for following in iterator:
                for first_image, batch in mine(following, 1, 2):
                    load(batch, following, first_image, made, config)
