"""What is kept of pictures and captions: found by content alone, whole or made anew, the same in every mode."""

import logging
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_lora_trainer.base.errors import DataError, NumericalError
from lib_lora_trainer.base.events import Note, Phase
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset import pixels
from lib_lora_trainer.dataset.augment import Address
from lib_lora_trainer.dataset.digests import ContentDigests
from lib_lora_trainer.dataset.pixels import load_pixels
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.views import views
from lib_lora_trainer.hosts.api import PictureSize, TextRequest
from lib_lora_trainer.train import ahead, cache
from lib_lora_trainer.train.cache import Exposure, LatentCache, to_tensor
from lib_lora_trainer.train.stores import DiskStore, MemoryStore
from lib_lora_trainer.train.text_cache import TextCache
from picture_lease import PictureLease, Waiting

FIRST = Address(1, 0)


def draw(path, seed, size=(96, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    path.with_suffix(".txt").write_text(path.stem, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        draw(tmp_path / "set" / f"{number}.png", number)
    return tmp_path / "set"


def settings(folder, **details):
    source = SourceConfig(str(folder))
    return replace(DataConfig(sources=(source,), resolution=64, bucket=False, cache="disk"), **details)


def opened(folder, data, lease, kept=None, group=None):
    """Return a cache that has been filled, and what filling it reported."""
    found = scan(data, ())
    latents = LatentCache(data, kept or folder.parent / "kept", lease, masked=True)
    return latents, list(latents.fill(found.items, views(found, data), group or Waiting()))


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", ["memory", "disk", "none"])
def test_every_mode_gives_the_same_latents(folder, mode):
    data = settings(folder, cache=mode, flip=True)
    lease = PictureLease()
    latents, _ = opened(folder, data, lease)
    found = scan(data, ())
    for index, view in enumerate(views(found, data)):
        for flipped in (False, True):
            encoded = latents.get(Exposure(index, flipped, FIRST))
            shown = load_pixels(found.items[view.item].path, view.placement)
            expected = PictureLease().encode_images(to_tensor(shown[:, ::-1] if flipped else shown))
            assert torch.equal(encoded.posterior.mean, expected.mean)
            assert torch.equal(encoded.posterior.std, expected.std)
            assert encoded.placement == view.placement and encoded.mask is None
    assert len(lease.encoded) == 6
    latents.get(Exposure(0, False, FIRST))
    assert len(lease.encoded) == (7 if mode == "none" else 6)


def test_pixels_become_what_the_vae_takes():
    values = np.array([[[0, 127, 255], [51, 0, 0]]], np.uint8)
    found = to_tensor(values)
    assert found.shape == (1, 3, 1, 2) and found.dtype == torch.float32
    np.testing.assert_allclose(found[0, :, 0, 0], [-1, 127 / 127.5 - 1, 1])
    np.testing.assert_allclose(found[0, :, 0, 1], [51 / 127.5 - 1, -1, -1])


def test_filling_reports_and_keeps_mirrored_pictures_where_they_are_wanted(folder):
    lease = PictureLease()
    _, events = opened(folder, settings(folder), lease)
    assert events == [
        *(Phase("looking up latents", done, 3) for done in range(3)),
        *(Phase("caching latents", done, 3) for done in range(4)),
    ]
    assert len(files(folder.parent / "kept")) == 3
    opened(folder, settings(folder, flip=True), lease)
    assert len(lease.encoded) == 6  # three more: the mirrored ones


def test_a_later_run_reads_what_an_earlier_one_kept(folder):
    first, _ = opened(folder, settings(folder), PictureLease())
    lease = PictureLease()
    second, events = opened(folder, settings(folder), lease)
    assert lease.encoded == [] and events[-1] == Phase("caching latents", 0, 0)
    for view in range(3):
        exposure = Exposure(view, False, FIRST)
        assert torch.equal(first.get(exposure).posterior.mean, second.get(exposure).posterior.mean)


def change_a_pixel(folder, data, lease):
    with Image.open(folder / "0.png") as image:
        image.putpixel((50, 20), (1, 2, 3))
        about = (folder / "0.png").stat()
        image.save(folder / "0.png")
    os.utime(folder / "0.png", ns=(about.st_atime_ns, about.st_mtime_ns))
    return data, lease


CHANGES = {
    "pixel": (change_a_pixel, 1),
    "vae": (lambda folder, data, lease: (data, PictureLease(seed=2)), 3),
    "latent scale": (lambda folder, data, lease: (data, PictureLease(latent_scale=0.7)), 3),
    "resolution": (lambda folder, data, lease: (replace(data, resolution=72), lease), 3),
    "bucket": (lambda folder, data, lease: (replace(data, bucket=True, bucket_step=8, bucket_minimum=32), lease), 3),
    "mirror": (lambda folder, data, lease: (replace(data, flip=True), lease), 3),
    "name": (lambda folder, data, lease: ((folder / "0.png").rename(folder / "z.png"), (data, lease))[1], 0),
    "time": (lambda folder, data, lease: (os.utime(folder / "0.png", ns=(1, 1)), (data, lease))[1], 0),
    "caption": (lambda folder, data, lease: ((folder / "0.txt").write_text("other"), (data, lease))[1], 0),
    "nothing": (lambda folder, data, lease: (data, lease), 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_stale_caches_are_impossible(folder, change):
    data = settings(folder)
    opened(folder, data, PictureLease())
    act, made = CHANGES[change]
    changed, lease = act(folder, data, PictureLease())
    latents, _ = opened(folder, changed, lease)
    assert len(lease.encoded) == made
    found = scan(changed, ())
    for index, view in enumerate(views(found, changed)):
        shown = to_tensor(load_pixels(found.items[view.item].path, view.placement))
        fresh = PictureLease.encode_images(lease, shown)
        assert torch.equal(latents.get(Exposure(index, False, FIRST)).posterior.mean, fresh.mean)


def test_another_way_from_file_to_pixels_makes_all_latents_anew(folder, monkeypatch):
    opened(folder, settings(folder), PictureLease())
    monkeypatch.setattr(cache, "PIPELINE", pixels.PIPELINE + 1)
    lease = PictureLease()
    opened(folder, settings(folder), lease)
    assert len(lease.encoded) == 3


def test_damaged_files_are_made_anew_and_named(folder):
    kept = folder.parent / "kept"
    opened(folder, settings(folder), PictureLease())
    cut, empty, torn = files(kept)
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    torn.write_bytes(b"\xff" * 100)
    lease = PictureLease()
    _, events = opened(folder, settings(folder), lease)
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.severity == "warning"
    assert note.text.startswith("3 files of kept latents are damaged and are made anew: ")
    assert all(str(path) in note.text for path in (cut, empty, torn))
    assert len(lease.encoded) == 3
    again = PictureLease()
    opened(folder, settings(folder), again)
    assert again.encoded == []


def test_damage_of_the_content_is_found_when_it_is_read(folder, caplog):
    latents, _ = opened(folder, settings(folder), lease := PictureLease())
    right = [latents.get(Exposure(view, False, FIRST)).posterior.mean for view in range(3)]
    changed, vanished, _ = files(folder.parent / "kept")
    data = bytearray(changed.read_bytes())
    data[-5] ^= 1
    changed.write_bytes(data)
    vanished.unlink()
    with caplog.at_level(logging.WARNING):
        now = [latents.get(Exposure(view, False, FIRST)).posterior.mean for view in range(3)]
    assert all(torch.equal(one, two) for one, two in zip(right, now, strict=True))
    assert len(lease.encoded) == 5
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and all("is missing or damaged and is made anew" in text for text in told)
    assert any(str(changed) in text for text in told) and any(str(vanished) in text for text in told)


def test_a_picture_the_vae_cannot_encode_is_named(folder):
    lease = PictureLease()
    lease.weights[0, 0, 0, 0] = float("nan")
    for mode in ("memory", "disk", "none"):
        with pytest.raises(NumericalError, match=r"0\.png: The VAE's latents are not finite"):
            latents, _ = opened(folder, settings(folder, cache=mode), lease)
            latents.get(Exposure(0, False, FIRST))
    assert files(folder.parent / "kept") == []


def test_a_picture_that_vanished_is_named_and_no_thread_stays(folder):
    for mode in ("memory", "disk"):
        data = settings(folder, cache=mode)
        found = scan(data, ())
        latents = LatentCache(data, folder.parent / "kept", PictureLease())
        (folder / "1.png").rename(folder / "away")
        with pytest.raises(DataError, match=r"1\.png: "):
            list(latents.fill(found.items, views(found, data), Waiting()))
        (folder / "away").rename(folder / "1.png")
    assert not any("decoding" in thread.name for thread in threading.enumerate())


def test_filling_that_is_given_up_leaves_no_thread(folder):
    data = settings(folder)
    found = scan(data, ())
    filling = LatentCache(data, folder.parent / "kept", PictureLease()).fill(found.items, views(found, data), Waiting())
    for event in filling:
        if event == Phase("caching latents", 1, 3):
            break
    filling.close()
    assert not any("decoding" in thread.name for thread in threading.enumerate())
    assert len(files(folder.parent / "kept")) == 1


def test_a_folder_that_cannot_be_written_is_named(folder):
    blocked = folder.parent / "file"
    blocked.write_text("x")
    with pytest.raises(DataError, match=r"file.*: cannot be written to: .*set data\.cache"):
        opened(folder, settings(folder), PictureLease(), kept=blocked)


def test_several_processes_each_encode_their_share_of_a_disk(folder):
    for number in range(3, 7):
        draw(folder / f"{number}.png", number)
    leases, groups = [PictureLease() for _ in range(2)], [Waiting(rank, 2) for rank in range(2)]
    caches = [opened(folder, settings(folder), *each)[0] for each in zip(leases, [None] * 2, groups, strict=True)]
    assert [len(lease.encoded) for lease in leases] == [4, 3]
    assert [group.waited for group in groups] == [1, 1]
    one, two = ([latents.get(Exposure(view, False, FIRST)) for view in range(7)] for latents in caches)
    assert all(torch.equal(a.posterior.mean, b.posterior.mean) for a, b in zip(one, two, strict=True))
    assert [len(lease.encoded) for lease in leases] == [4, 3]
    in_memory = [PictureLease() for _ in range(2)]
    for lease, group in zip(in_memory, groups, strict=True):
        opened(folder, settings(folder, cache="memory"), lease, group=group)
    assert [len(lease.encoded) for lease in in_memory] == [7, 7]


@pytest.mark.parametrize("mode", ["memory", "disk", "none"])
def test_masks_come_with_their_pictures_mirrored_like_them(folder, mode):
    masks = folder.parent / "masks"
    masks.mkdir()
    half = Image.new("L", (96, 64), 0)
    half.paste(255, (0, 0, 48, 64))
    half.save(masks / "0.png")
    source = SourceConfig(str(folder), masks=str(masks), flip=True)
    latents, _ = opened(folder, settings(folder, sources=(source,), cache=mode), PictureLease())
    left, right = (latents.get(Exposure(0, flipped, FIRST)).mask for flipped in (False, True))
    assert left.shape == (1, 1, 8, 8) and left.dtype == torch.float32
    assert left[0, 0].tolist() == [[1.0] * 4 + [0.0] * 4] * 8
    assert torch.equal(right, left.flip(-1))
    assert latents.get(Exposure(1, False, FIRST)).mask is None
    # Another mask under the same name is another mask.
    Image.new("L", (96, 64), 51).save(masks / "0.png")
    later, _ = opened(folder, settings(folder, sources=(source,), cache=mode), PictureLease())
    assert later.get(Exposure(0, False, FIRST)).mask.unique().tolist() == pytest.approx([0.2])


def test_masks_are_left_alone_when_they_are_not_wanted(folder):
    masks = folder.parent / "masks"
    masks.mkdir()
    Image.new("L", (96, 64), 9).save(masks / "0.png")
    data = settings(folder, sources=(SourceConfig(str(folder), masks=str(masks), alpha_masks=True),))
    found = scan(data, ())
    latents = LatentCache(data, folder.parent / "kept", PictureLease())
    list(latents.fill(found.items, views(found, data), Waiting()))
    assert all(latents.get(Exposure(view, False, FIRST)).mask is None for view in range(3))


def test_each_file_is_hashed_once(folder, monkeypatch):
    digests = ContentDigests()
    first = digests.of(folder / "0.png")
    (folder / "0.png").write_bytes(b"changed")
    assert digests.of(folder / "0.png") == first != ContentDigests().of(folder / "0.png")
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        digests.of(folder / "gone.png")


@pytest.mark.parametrize("make", [lambda folder: MemoryStore(), DiskStore], ids=["memory", "disk"])
def test_stores_keep_what_they_are_given(tmp_path, make):
    kept = make(tmp_path)
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(4), "c": torch.randn(3, 2).t()}
    assert kept.condition("abc") == "missing" and kept.read("abc") is None
    kept.write("abc", tensors)
    assert kept.condition("abc") == "kept"
    found = kept.read("abc")
    assert set(found) == set(tensors) and all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert not list(tmp_path.rglob(".writing-*"))


def test_what_is_expected_is_made_in_a_thread_in_order_and_the_rest_at_once():
    made = []

    def make(number):
        made.append((number, threading.current_thread().name.startswith("decoding")))
        if number == 3:
            raise DataError("three")
        return number * 10

    with ahead.Ahead(make) as values:
        assert values.take(7) == 70 and made == [(7, False)]
        values.expect(range(1, 5))
        assert made == [(7, False)]  # nothing begins before the first is asked for
        assert [values.take(1), values.take(2)] == [10, 20]
        with pytest.raises(DataError, match="three"):
            values.take(3)
        assert values.take(4) == 40
        assert values.take(3.5) == 35
    assert sorted(made) == [(1, False), (2, True), (3, True), (3.5, False), (4, True), (7, False)]
    assert not any("decoding" in thread.name for thread in threading.enumerate())


def request(*captions, **details):
    size = PictureSize((64, 64), (0, 0), (64, 64))
    return replace(TextRequest(captions, 1, 1, (size,) * len(captions)), **details)


@pytest.mark.parametrize("mode", ["memory", "disk"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_batches_of_captions_equal_single_ones_bit_for_bit(tmp_path, mode, family):
    lease = PictureLease(family=family)
    texts = TextCache(mode, tmp_path, lease)
    batch = request("a cat", "a dog", "a cat")
    for _ in range(2):
        found = texts.encode(batch, lease)
        singles = [lease.encode_text(request(caption)) for caption in batch.captions]
        assert torch.equal(found.context, torch.cat([single.context for single in singles]))
        if family == "sdxl":
            assert torch.equal(found.vector, torch.cat([single.vector for single in singles]))
        else:
            assert found.vector is None
    assert sum(each.captions == ("a cat",) for each in lease.texts) == 1 + 2 * 2  # once here, and the test's own
    assert all(len(each.captions) == 1 for each in lease.texts)


def test_everything_in_a_request_belongs_to_its_key(tmp_path):
    lease = PictureLease(family="sdxl")
    other = PictureSize((64, 64), (8, 0), (64, 64))
    variants = [
        request("a"), request("b"), request("a", clip_skip=2), request("a", chunks=2), request("a", emphasis=True),
        request("a", sizes=(other,)),
    ]  # fmt: skip
    texts = TextCache("disk", tmp_path, lease)
    for variant in (*variants, *variants):
        found = texts.encode(variant, lease)
        assert torch.equal(found.vector, PictureLease(family="sdxl").encode_text(variant).vector)
    assert len(lease.texts) == len(variants)
    # Only SDXL reads sizes.
    plain = PictureLease()
    texts = TextCache("memory", tmp_path, plain)
    texts.encode(request("a"), plain)
    texts.encode(request("a", sizes=(other,)), plain)
    texts.encode(request("a", sizes=()), plain)
    assert len(plain.texts) == 1


def test_texts_on_disk_serve_later_runs_with_the_same_encoders_and_survive_damage(tmp_path, caplog):
    lease = PictureLease()
    assert list(TextCache("disk", tmp_path, lease).fill([request("a", "b"), request("b", "c")], lease)) == [
        Phase("caching captions", done, 3) for done in range(4)
    ]
    again = PictureLease()
    TextCache("disk", tmp_path, again).encode(request("a", "b", "c"), again)
    assert again.texts == []
    other = PictureLease(seed=2)
    TextCache("disk", tmp_path, other).encode(request("a", "b", "c"), other)
    assert len(other.texts) == 3
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        found = TextCache("disk", tmp_path, again).encode(request("a"), again)
    assert torch.equal(found.context, PictureLease().encode_text(request("a")).context)
    assert "is damaged and is made anew" in caplog.text


def test_kept_texts_carry_no_gradient(tmp_path):
    lease = PictureLease()
    lease.table.requires_grad_()
    lease.identity = lambda part: "0"
    assert not TextCache("memory", tmp_path, lease).encode(request("a"), lease).context.requires_grad
