"""From files to pixels: orientation, transparency, number formats, scaling; thumbnails."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset import formats
from lib_lora_trainer.dataset.buckets import Bucket, Placement, place
from lib_lora_trainer.dataset.exif import ORIENTATION
from lib_lora_trainer.dataset.formats import inspect
from lib_lora_trainer.dataset.pixels import load_pixels, open_upright
from lib_lora_trainer.dataset.thumbnails import thumbnail

DATA = DataConfig(resolution=64, bucket_step=8, bucket_minimum=64)


def smooth(width, height, seed=0):
    """Return a picture without fine detail: a few random colours, spread."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def unscaled(width, height):
    return Placement(Bucket(width, height), (width, height), (0, 0), (width, height))


def grey_png_of_16_bits(values, transparent):
    """Return a PNG by the letter of its specification; which of Pillow's modes can be saved so varies by version."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    colour = struct.pack(">H", transparent)
    chunks = ((b"IHDR", header), (b"tRNS", colour), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks)


@pytest.mark.parametrize("size", [(64, 64), (200, 120), (120, 200), (333, 90), (30, 20), (1, 1), (700, 701)])
def test_pixels_equal_the_scaled_whole_cut_out(tmp_path, size):
    smooth(*size).save(tmp_path / "a.png")
    placement = place(*size, DATA)
    pixels = load_pixels(tmp_path / "a.png", placement)
    left, top = placement.crop
    bucket = placement.bucket
    whole = Image.open(tmp_path / "a.png").resize(placement.scaled, Image.Resampling.LANCZOS)
    expected = np.asarray(whole)[top : top + bucket.height, left : left + bucket.width].astype(int)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (bucket.height, bucket.width, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 2  # Pillow rounds once per axis


def test_the_crop_is_the_recorded_one(tmp_path):
    # Red left, green middle, blue right: 192×64 cropped to the centre 64×64 is green.
    picture = Image.new("RGB", (192, 64), (255, 0, 0))
    picture.paste((0, 255, 0), (64, 0, 128, 64))
    picture.paste((0, 0, 255), (128, 0, 192, 64))
    picture.save(tmp_path / "a.png")
    square = DataConfig(resolution=64, bucket=False)
    assert (load_pixels(tmp_path / "a.png", place(192, 64, square)) == (0, 255, 0)).all()
    shifted = Placement(Bucket(64, 64), (192, 64), (128, 0), (192, 64))
    assert (load_pixels(tmp_path / "a.png", shifted) == (0, 0, 255)).all()


def test_shrinking_averages_instead_of_dropping(tmp_path):
    # One-pixel black and white stripes, shrunk by 4: even grey. Nearest neighbour would give black or white.
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    pixels = load_pixels(tmp_path / "a.png", Placement(Bucket(64, 64), (64, 64), (0, 0), (256, 256)))
    assert np.abs(pixels[:, 2:-2].astype(int) - 127.5).max() <= 3


def test_shrinking_keeps_a_ramp_straight(tmp_path):
    # A ramp of slope 1 shrunk by 1.25 has slope 1.25; BOX staggers it by up to half a source pixel.
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (80, 240, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.png")
    placement = Placement(Bucket(192, 64), (192, 64), (0, 0), (240, 80))
    straight = (np.arange(192) + 0.5) * 1.25 - 0.5

    def deviation(pixels):
        return np.abs(pixels[30, 4:-4, 0].astype(float) - straight[4:-4]).mean()

    boxed = np.asarray(Image.open(tmp_path / "a.png").resize((192, 64), Image.Resampling.BOX))
    assert deviation(load_pixels(tmp_path / "a.png", placement)) < 0.26  # rounding alone is 0.25
    assert deviation(boxed) > 0.3


def test_a_very_long_picture_needs_little_memory(tmp_path):
    Image.new("RGB", (1, 8000), (10, 200, 30)).save(tmp_path / "a.png")
    placement = place(1, 8000, DataConfig())
    assert placement.scaled == (256, 2_048_000)  # 1.5 GB if it were made
    assert (load_pixels(tmp_path / "a.png", placement) == (10, 200, 30)).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_is_honoured(tmp_path, turn):
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    smooth(40, 24, seed=turn).save(tmp_path / "a.jpg", quality=95, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")))
    facts = inspect(tmp_path / "a.jpg")
    assert (facts.height, facts.width) == expected.shape[:2] == ((40, 24) if turn >= 5 else (24, 40))
    assert np.array_equal(np.asarray(open_upright(tmp_path / "a.jpg")), expected)
    assert np.array_equal(load_pixels(tmp_path / "a.jpg", unscaled(facts.width, facts.height)), expected)


def test_a_turned_photograph_by_hand(tmp_path):
    # Stored lying, orientation 6: the stored left edge is the upper edge when upright.
    stored = Image.new("RGB", (64, 32), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 16, 32))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored.save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(open_upright(tmp_path / "a.png"))
    assert upright.shape == (64, 32, 3)
    assert (upright[:16] == (255, 0, 0)).all()
    assert (upright[16:] == (0, 0, 255)).all()


def test_damaged_exif_leaves_the_picture_as_stored(tmp_path, monkeypatch):
    smooth(40, 24).save(tmp_path / "a.jpg")

    def broken(_image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert inspect(tmp_path / "a.jpg").exif_unreadable
    assert open_upright(tmp_path / "a.jpg").size == (40, 24)


def test_alpha_on_white_whatever_colour_it_hides(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (255, 0, 0, 0)  # red, but fully transparent
    pixels[4:6] = (0, 0, 255, 255)
    pixels[6:] = (0, 0, 0, 128)  # half black on white: 255 × (1 - 128/255) = 127
    Image.fromarray(pixels).save(tmp_path / "a.png")
    upright = np.asarray(open_upright(tmp_path / "a.png"))
    assert (upright[:4] == 255).all()
    assert (upright[4:6] == (0, 0, 255)).all()
    assert (upright[6:] == 127).all()
    assert inspect(tmp_path / "a.png").transparent


@pytest.mark.parametrize("kind", ["palette", "one colour of RGB", "one grey", "one 16-bit grey", "grey with alpha"])
def test_other_kinds_of_transparency(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "palette":
        picture = Image.new("P", (4, 4), 1)
        picture.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
        picture.putpixel((0, 0), 0)
        picture.save(path, transparency=0)
        opaque = (0, 0, 255)
    elif kind == "one colour of RGB":
        picture = Image.new("RGB", (4, 4), (9, 8, 7))
        picture.putpixel((0, 0), (255, 0, 0))
        picture.save(path, transparency=(255, 0, 0))
        opaque = (9, 8, 7)
    elif kind == "one grey":
        picture = Image.new("L", (4, 4), 90)
        picture.putpixel((0, 0), 3)
        picture.save(path, transparency=3)
        opaque = (90, 90, 90)
    elif kind == "one 16-bit grey":
        values = np.full((4, 4), 90 * 257, ">u2")
        values[0, 0] = 3
        path.write_bytes(grey_png_of_16_bits(values, transparent=3))
        opaque = (90, 90, 90)
    else:
        picture = Image.new("LA", (4, 4), (90, 255))
        picture.putpixel((0, 0), (0, 0))
        picture.save(path)
        opaque = (90, 90, 90)
    upright = open_upright(path)
    assert inspect(path).transparent
    assert upright.getpixel((0, 0)) == (255, 255, 255)
    assert upright.getpixel((2, 2)) == opaque


def test_an_alpha_channel_without_transparency_is_no_transparency(tmp_path):
    smooth(8, 8).convert("RGBA").save(tmp_path / "a.png")
    assert not inspect(tmp_path / "a.png").transparent
    assert np.array_equal(np.asarray(open_upright(tmp_path / "a.png")), np.asarray(smooth(8, 8)))


def test_16_bits_are_scaled_not_cut(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535], [1, 200, 40000, 256]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    upright = np.asarray(open_upright(tmp_path / "a.png"))
    assert np.array_equal(upright[..., 0], np.round(values / 257).astype(int))
    assert (upright[..., 0] == upright[..., 1]).all()
    assert inspect(tmp_path / "a.png").deep
    assert not inspect(tmp_path / "a.png").transparent


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(open_upright(tmp_path / "a.jpg")).astype(int) - (255, 0, 0)).max() <= 3
    assert inspect(tmp_path / "a.jpg").cmyk


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette(tmp_path, mode):
    picture = smooth(16, 12).convert(mode)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_upright(tmp_path / "a.png")), np.asarray(picture.convert("RGB")))


def test_a_phones_jpeg_with_a_second_picture_is_no_animation(tmp_path):
    smooth(32, 32).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[smooth(8, 8, seed=1)])
    facts = inspect(tmp_path / "a.jpg")
    assert facts.format == "MPO"
    assert not facts.animated
    assert open_upright(tmp_path / "a.jpg").size == (32, 32)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp", "gif"])
@pytest.mark.parametrize("host_is_lenient", [False, True])
def test_a_truncated_file_is_found_whatever_the_host_has_set(tmp_path, monkeypatch, kind, host_is_lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", host_is_lenient)
    path = tmp_path / f"a.{kind}"
    smooth(200, 200).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with pytest.raises(formats.DECODER_ERRORS):
        inspect(path)
    with pytest.raises(DataError, match=f"a.{kind}: is"):
        open_upright(path)
    assert host_is_lenient == ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_progressive_jpeg_broken_late_is_found(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-200])
    with pytest.raises(OSError, match="truncated"):
        inspect(tmp_path / "a.jpg")


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"empty\.png: is empty \(0 bytes\)"):
        open_upright(tmp_path / "empty.png")
    with pytest.raises(DataError, match=r"text\.png: is not a picture"):
        open_upright(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"gone\.png: does not exist"):
        load_pixels(tmp_path / "gone.png", unscaled(8, 8))


def test_formats_that_run_programs_are_never_opened(tmp_path):
    smooth(8, 8).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="is not a picture"):
        open_upright(tmp_path / "a.png")


def test_too_many_pixels_are_refused_even_if_the_host_allows_them(tmp_path, monkeypatch):
    smooth(20, 20).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(formats, "MAXIMUM_PIXELS", 399)
    with pytest.raises(DataError, match="million pixels"):
        open_upright(tmp_path / "a.png")
    monkeypatch.setattr(formats, "MAXIMUM_PIXELS", 400)
    assert open_upright(tmp_path / "a.png").size == (20, 20)


def test_a_picture_changed_since_the_scan_is_refused(tmp_path):
    smooth(20, 30).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is 20×30 pixels now, but was 30×20"):
        load_pixels(tmp_path / "a.png", place(30, 20, DATA))


def test_names_in_any_script(tmp_path):
    path = tmp_path / "データ 🐱" / "été ß.png"
    path.parent.mkdir()
    smooth(16, 16).save(path)
    assert load_pixels(path, unscaled(16, 16)).shape == (16, 16, 3)
    assert thumbnail(path, tmp_path / "縮小", 8).exists()


def test_thumbnails_are_kept_and_renewed(tmp_path):
    path, cache = tmp_path / "a.jpg", tmp_path / "cache"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    smooth(400, 200).save(path, exif=exif)
    first = thumbnail(path, cache, 64)
    with Image.open(first) as small:
        assert (small.format, small.size) == ("JPEG", (32, 64))
    before = first.stat().st_mtime_ns
    assert thumbnail(path, cache, 64) == first
    assert first.stat().st_mtime_ns == before
    assert thumbnail(path, cache, 32) != first
    Image.new("RGB", (50, 50), (0, 255, 0)).save(path)
    os.utime(path, ns=(1, 1))
    renewed = thumbnail(path, cache, 64)
    assert renewed != first
    with Image.open(renewed) as small:
        assert small.size == (50, 50)  # never enlarged
        assert small.getpixel((25, 25))[1] > 240
    assert not list(cache.glob(".writing-*"))


def test_a_thumbnail_of_a_broken_file_names_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"a\.png"):
        thumbnail(tmp_path / "a.png", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
