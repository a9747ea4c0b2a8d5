"""A folder of bad and odd files as people really have them: what each one is, and what becomes of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, features

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Case:
    """One file. name: relative to the folder; said: what a problem says of it, "" when nothing is said.

    fate: used, left out, or ignored (no picture file at all). size: upright, of a used picture.
    """

    name: str
    fate: str
    said: str = ""
    size: tuple[int, int] = (40, 24)


def photo(size: tuple[int, int] = (40, 24), seed: int = 0) -> Image.Image:
    """Return a picture of noise over a slope, which no format can store in a few bytes."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 160, (height, width, 3))
    slope = np.linspace(0, 95, width)[None, :, None]
    return Image.fromarray((noise + slope).astype(np.uint8))


def stored(image: Image.Image, format_: str, **options: object) -> bytes:
    """Return a picture as the bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG file's signature and its IHDR chunk."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def animation(format_: str) -> bytes:
    """Return three frames that differ."""
    frames = [photo(seed=seed) for seed in range(3)]
    if format_ == "GIF":
        frames = [frame.quantize(16) for frame in frames]
    return stored(frames[0], format_, save_all=True, append_images=frames[1:], duration=50)


def broken_files(put: Callable[[str, bytes], None]) -> Iterator[Case]:
    """Write files that no decoder gets through."""
    damaged, nothing = "is damaged or incomplete", "is not a picture"
    for extension, format_ in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP"), ("gif", "GIF")):
        data = stored(photo((96, 64)), format_)
        put(f"half.{extension}", data[: len(data) // 2])
        yield Case(f"half.{extension}", "left out", damaged if extension != "webp" else "is ")
        put(f"header only.{extension}", data[:12])
        yield Case(f"header only.{extension}", "left out", "is ")
        put(f"zero bytes.{extension}", b"")
        yield Case(f"zero bytes.{extension}", "left out", "is empty (0 bytes)")
        put(f"zeros.{extension}", bytes(4096))
        yield Case(f"zeros.{extension}", "left out", nothing)
    put("text.png", b"1girl, solo, smile")
    yield Case("text.png", "left out", nothing)
    put("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
    yield Case("page.jpg", "left out", nothing)
    put("bomb.png", png_header(60_000, 60_000) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    yield Case("bomb.png", "left out", "has more than 178 million pixels")
    put("bomb.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 90_000, 90_000, 1, 24, 0, 0, 0, 0, 0, 0))
    yield Case("bomb.bmp", "left out", "has more than 178 million pixels")
    put("bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b"\x3b")
    yield Case("bomb.gif", "left out", "is ")
    data = bytearray(stored(photo(), "PNG"))
    data[60] ^= 0xFF
    put("flipped byte.png", bytes(data))
    yield Case("flipped byte.png", "left out", damaged)
    put("no data.png", png_header(40, 24) + chunk(b"IEND", b""))
    yield Case("no data.png", "left out", damaged)
    put("no size.png", png_header(0, 0) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    yield Case("no size.png", "left out", "is ")
    put("odd depth.png", png_header(40, 24, 7) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))
    yield Case("odd depth.png", "left out", "is ")
    text = b"x\x00\x00" + zlib.compress(bytes(80_000_000), 9)
    put("text bomb.png", png_header(40, 24) + chunk(b"zTXt", text) + chunk(b"IEND", b""))
    yield Case("text bomb.png", "left out", damaged)
    for extension, format_ in (("gif", "GIF"), ("png", "PNG"), ("webp", "WEBP")):
        put(f"moving.{extension}", animation(format_))
        yield Case(f"moving.{extension}", "left out", "is animated")
    readable = {"avif": features.check("avif") if "avif" in features.modules else False}
    if not readable["avif"]:
        put("broken.avif", b"\x00\x00\x00\x1cftypavif" + bytes(64))
        yield Case("broken.avif", "left out", "")  # the words depend on whether a plugin is installed


def odd_files(put: Callable[[str, bytes], None]) -> Iterator[Case]:
    """Write pictures that are unusual and can be used all the same."""
    image = photo()
    misnamed, white, deep = "of another format than", "which become white", "16 bits per channel"
    for name, format_ in (("a jpeg.png", "JPEG"), ("a png.jpg", "PNG"), ("a webp.jpeg", "WEBP"), ("a gif.bmp", "GIF")):
        put(name, stored(image, format_))
        yield Case(name, "used", misnamed)
    put("print.jpg", stored(image.convert("CMYK"), "JPEG"))
    yield Case("print.jpg", "used", "are CMYK")
    put("grey.jpg", stored(image.convert("L"), "JPEG"))
    yield Case("grey.jpg", "used")
    put("progressive.jpg", stored(image, "JPEG", progressive=True))
    yield Case("progressive.jpg", "used")
    put("trailer.jpg", stored(image, "JPEG") + bytes(3000))
    yield Case("trailer.jpg", "used")
    put("trailer.png", stored(image, "PNG") + b"appended by some program")
    yield Case("trailer.png", "used")
    grey16 = Image.fromarray(np.arange(40 * 24, dtype=np.uint16).reshape(24, 40) * 60)
    put("deep grey.png", stored(grey16, "PNG"))
    yield Case("deep grey.png", "used", deep)
    rows = b"".join(b"\x00" + bytes(np.random.default_rng(row).integers(0, 256, 40 * 6, np.uint8)) for row in range(24))
    put("deep.png", png_header(40, 24, 16) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    yield Case("deep.png", "used", deep)
    for name, mode in (("palette", "P"), ("grey", "L"), ("one bit", "1")):
        put(f"{name}.png", stored(image.convert(mode), "PNG"))
        yield Case(f"{name}.png", "used")
    see_through = image.copy()
    see_through.putalpha(Image.linear_gradient("L").resize((40, 24)))
    put("transparent.png", stored(see_through, "PNG"))
    yield Case("transparent.png", "used", white)
    put("transparent.webp", stored(see_through, "WEBP"))
    yield Case("transparent.webp", "used", white)
    put("grey and alpha.png", stored(see_through.convert("LA"), "PNG"))
    yield Case("grey and alpha.png", "used", white)
    few = image.quantize(16)
    put("one colour clear.png", stored(few, "PNG", transparency=few.getpixel((3, 3))))
    yield Case("one colour clear.png", "used", white)
    put("opaque alpha.png", stored(image.convert("RGBA"), "PNG"))
    yield Case("opaque alpha.png", "used")
    for value in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        put(f"exif {value}.jpg", stored(image, "JPEG", exif=exif))
        yield Case(f"exif {value}.jpg", "used", size=(24, 40) if value >= 5 else (40, 24))
    put("broken exif.jpg", stored(image, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00"))
    yield Case("broken exif.jpg", "used")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    late = stored(image, "PNG")
    put("late exif.png", late[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + late[-12:])
    yield Case("late exif.png", "used", size=(24, 40))
    long_text = PngImagePlugin.PngInfo()
    long_text.add_text("parameters", "1girl, " * 900)
    put("with parameters.png", stored(image, "PNG", pnginfo=long_text))
    yield Case("with parameters.png", "used")
    for size in ((1, 1), (1, 4000), (30_000, 1)):
        put(f"{size[0]}x{size[1]}.png", stored(photo(size), "PNG"))
        yield Case(f"{size[0]}x{size[1]}.png", "used", size=size)
    put("a still.gif", stored(image.quantize(16), "GIF"))
    yield Case("a still.gif", "used")
    put("eight bits.bmp", stored(image.convert("P"), "BMP"))
    yield Case("eight bits.bmp", "used")
    put("one bit.bmp", stored(image.convert("1"), "BMP"))
    yield Case("one bit.bmp", "used")
    put("alpha.bmp", stored(see_through, "BMP"))
    yield Case("alpha.bmp", "used", "")  # Pillow writes it without saying that it has an alpha channel
    data = stored(image, "BMP")
    put("no length.bmp", data[:2] + bytes(4) + data[6:])
    yield Case("no length.bmp", "used")
    put("lossless.webp", stored(image, "WEBP", lossless=True))
    yield Case("lossless.webp", "used")


def odd_names(put: Callable[[str, bytes], None], root: Path) -> Iterator[Case]:
    """Write good pictures under names that programs stumble over, and things that only look like pictures."""
    data = stored(photo(), "PNG")
    names = ("猫と帽子.png", "🐱👒.png", " leading space.png", "trailing space .png", "-rf.png", "--help.png")
    names += ("a'b\"c.png", "a&b;c.png", "%20%00.png", "[x].png", "UPPER.PNG", "two.dots.png", "é.png")
    names += ("é" * 125 + "a.png", "new\nline.png", "CON.png", "'$(reboot)'.png", "a#b?.png")
    for name in names:
        put(name, data)
        yield Case(name, "used")
    for name in ("._x.png", "__MACOSX/x.png", ".hidden.png", ".hidden/x.png", "Thumbs.db", "notes.md", ".png"):
        put(name, data)
        yield Case(name, "ignored", "what macOS leaves" if name[:2] in ("._", "__") else "")
    (root / "folder.png").mkdir()
    put("folder.png/inside.png", data)
    yield Case("folder.png/inside.png", "used")
    for extension in ("tif", "tiff", "psd", "heic", "svg"):
        put(f"other.{extension}", stored(photo(), "TIFF"))
        yield Case(f"other.{extension}", "left out", "in formats not read here")
    (root / "circle.png").symlink_to(root / "circle.png")
    yield Case("circle.png", "left out", "links to nothing")
    (root / "lost.png").symlink_to(root / "gone" / "away.png")
    yield Case("lost.png", "left out", "links to nothing")
    (root / "round").symlink_to(root, target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.png")
        yield Case("pipe.png", "left out", "is no regular file")
    raw = os.fsencode(root) + b"/caf\xe9 \xff.png"
    try:
        Path(os.fsdecode(raw)).write_bytes(data)
    except OSError:  # a file system that keeps names in Unicode
        return
    yield Case("caf\\udce9", "left out", "is not valid Unicode")


def make(root: Path) -> tuple[Case, ...]:
    """Write the corpus into a new folder and return what is in it."""
    root.mkdir(parents=True)

    def put(name: str, data: bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return (*broken_files(put), *odd_files(put), *odd_names(put, root))


CAPTIONS: tuple[tuple[str, bytes | None, str, str], ...] = (
    # stem, the caption file's bytes, the caption then, what is said
    ("missing", None, "sks", "no caption file"),
    ("empty", b"", "sks", "an empty caption file"),
    ("spaces", b" \r\n\t \n", "sks", "an empty caption file"),
    ("only a mark", b"\xef\xbb\xbf", "sks", "an empty caption file"),
    ("plain", b"1girl, hat", "1girl, hat", ""),
    ("with mark", b"\xef\xbb\xbf1girl, hat", "1girl, hat", ""),
    ("utf-16", "1girl, 猫".encode("utf-16"), "1girl, 猫", ""),
    ("utf-16 be", b"\xfe\xff" + "1girl, 猫".encode("utf-16-be"), "1girl, 猫", ""),
    ("utf-16 unmarked", "1girl, hat".encode("utf-16-le"), "sks", "is no text"),
    ("japanese", "1girl, 帽子, リボン".encode("cp932"), "1girl, 帽子, リボン", "was read as cp932"),
    ("latin", "1girl, café".encode("latin-1"), "1girl, café", "was read as cp1252"),
    ("nul bytes", b"1girl\x00\x00hat", "sks", "is no text"),
    ("no text", bytes(range(256)), "sks", "is no text"),
)
