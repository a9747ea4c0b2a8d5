"""The sheet: cells in rows and columns with their labels, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_LATIN = ("DejaVuSans.ttf", "Arial.ttf", "arial.ttf", "LiberationSans-Regular.ttf", "Helvetica.ttc")
# In the order of preference: Linux, Windows, macOS.
_JAPANESE = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKjp-Regular.otf", "NotoSansJP-Regular.otf", "ipag.ttf", "ipaexg.ttf",
    "TakaoGothic.ttf", "VL-Gothic-Regular.ttf", "meiryo.ttc", "YuGothM.ttc", "msgothic.ttc",
    "ヒラギノ角ゴシック W3.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf",
)  # fmt: skip
_EAST_ASIAN = "\u2e80"  # the first character of the blocks that Latin fonts lack
_INK, _PAPER, _EMPTY = (16, 16, 16), (255, 255, 255), (224, 228, 234)
_GAP = 4
_LARGEST = 65_000  # pixels of a side; PNG readers fail on more


@dataclass(frozen=True)
class Labels:
    """What stands around a sheet. title: above everything, "" for nothing."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    title: str = ""


def draw(images: Mapping[tuple[int, int], Image.Image], labels: Labels, largest: int = _LARGEST) -> Image.Image:
    """Return the sheet of images by (column, row); those that are missing are grey.

    Each column is as wide and each row as high as its largest image. Nothing is scaled unless a side would be longer
    than `largest` pixels. Equal images and labels give equal pixels where the fonts are equal.
    """
    columns, rows = range(len(labels.columns)), range(len(labels.rows))
    usual = max((image.size for image in images.values()), default=(64, 64))
    widths = [max((images[c, r].width for r in rows if (c, r) in images), default=usual[0]) for c in columns]
    heights = [max((images[c, r].height for c in columns if (c, r) in images), default=usual[1]) for r in rows]
    size = max(12, min(36, min(widths) // 12))
    left = _side(labels.rows, size, max(64, *widths))
    above = [_wrapped(text, size, width) for text, width in zip(labels.columns, widths, strict=True)]
    title = _wrapped(labels.title, size, left + sum(widths))
    line = size + size // 3
    head = line * len(title) + (_GAP if title else 0)
    top = head + max((len(lines) for lines in above), default=0) * line + (_GAP if any(above) else 0)
    whole = (left + sum(widths) + _GAP * len(widths), top + sum(heights) + _GAP * len(heights))
    sheet = Image.new("RGB", whole, _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, title, (_GAP, 0), size)
    x = left
    for column in columns:
        _write(pen, above[column], (x, head), size)
        y = top
        for row in rows:
            image = images.get((column, row))
            if image is None:
                pen.rectangle((x, y, x + widths[column] - 1, y + heights[row] - 1), fill=_EMPTY)
            else:
                sheet.paste(image.convert("RGB"), (x, y))
            y += heights[row] + _GAP
        x += widths[column] + _GAP
    y = top
    for row in rows:
        _write(pen, _wrapped(labels.rows[row], size, left - 2 * _GAP), (_GAP, y), size)
        y += heights[row] + _GAP
    if max(sheet.size) > largest:
        sheet.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return sheet


def unreadable(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts for whose letters no font was found on this machine; a sheet shows boxes in their place."""
    return tuple(text for text in texts if _is_east_asian(text) and _first(_JAPANESE, 12) is None)


def _is_east_asian(text: str) -> bool:
    return any(letter >= _EAST_ASIAN for letter in text)


def _first(names: Sequence[str], size: int) -> ImageFont.FreeTypeFont | None:
    for name in names:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return None


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    names = (*_JAPANESE, *_LATIN) if _is_east_asian(text) else _LATIN
    return _first(names, size) or ImageFont.load_default()


def _drawable(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if isinstance(font, ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")  # Pillow's own bitmap font knows no other letters


def _width(text: str, size: int) -> float:
    font = _font(text, size)
    return font.getlength(_drawable(text, font))


def _side(texts: Sequence[str], size: int, most: int) -> int:
    longest = max((_width(text, size) for text in texts if text), default=0.0)
    return min(most, int(longest) + 1) + 2 * _GAP if longest else 0


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Return a text in lines that fit into a width, cut between words where there are any, else anywhere."""
    lines: list[str] = []
    rest = text.strip()
    fonts: dict[bool, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}  # to look for one takes longer than to measure

    def length(part: str) -> float:
        script = _is_east_asian(part)
        fonts[script] = fonts.get(script) or _font(part, size)
        return fonts[script].getlength(_drawable(part, fonts[script]))

    while rest:
        end = len(rest)
        while end > 1 and length(rest[:end]) > width:
            end -= 1
        if end < len(rest):
            space = rest.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return lines


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[str], at: tuple[int, int], size: int) -> None:
    for number, line in enumerate(lines):
        font = _font(line, size)
        pen.text((at[0], at[1] + number * (size + size // 3)), _drawable(line, font), fill=_INK, font=font)
