"""The orientation in EXIF data, read alone: wherever an answer comes, it is the one that Pillow gives from all entries."""

from __future__ import annotations

import struct
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_lora_trainer.dataset.exif import ORIENTATION, plain_orientation


def by_pillow(data: bytes) -> object:
    """Return what Pillow reads."""
    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif.load(data)
    return exif.get(ORIENTATION, 1)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """EXIF data, mostly in order: a directory of some entries with what they point at, in both orders of bytes."""
    order = draw(st.sampled_from("<>"))
    tags = draw(st.lists(st.sampled_from([0x10E, 0x10F, 0x110, ORIENTATION, ORIENTATION, 0x11A, 0x132]), max_size=6))
    if draw(st.integers(0, 3)):
        tags = sorted(set(tags) | {ORIENTATION})
    entries, data = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for tag in tags:
        if tag == ORIENTATION:
            kind, values = draw(st.sampled_from([(3, 1)] * 6 + [(4, 1), (1, 1), (3, 2)]))
            field = struct.pack(f"{order}HH", draw(st.integers(0, 9)), 0)
        else:
            kind, values = draw(st.sampled_from([(2, 9), (2, 3), (5, 1), (3, 1), (13, 1), (2, 0)]))
            field = struct.pack(f"{order}I", start + len(data) + draw(st.sampled_from([0, 0, 0, 0, 500])))
            data += b"2024 text " * (values > 3 or kind == 5)
        entries += struct.pack(f"{order}HHI", tag, kind, values) + field
    header = {"<": b"II*\x00", ">": b"MM\x00*"}[order] + struct.pack(f"{order}IH", 8, len(tags))
    whole = bytearray(draw(st.sampled_from([b"Exif\x00\x00", b""])) + header + entries + bytes(4) + data)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.sampled_from([len(whole), len(whole), len(whole) // 2]))])


@settings(max_examples=1500, deadline=None)
@given(data=written())
def test_an_answer_is_pillows_answer(data):
    answer = plain_orientation(data)
    if answer is not None:
        assert by_pillow(data) == answer


@given(data=st.binary(max_size=80))
def test_bytes_that_are_no_exif_data_are_left_to_pillow(data):
    for begin in (b"", b"Exif\x00\x00", b"Exif\x00\x00II*\x00", b"MM\x00*\x00\x00\x00\x08"):
        answer = plain_orientation(begin + data)
        assert answer is None or by_pillow(begin + data) == answer


@pytest.mark.parametrize("turn", range(1, 9))
def test_what_pillow_writes_is_plain(turn):
    exif = Image.Exif()
    exif.update({0x010F: "Camera", 0x0110: "A longer name", ORIENTATION: turn, 0x0132: "2024:01:01 00:00:00"})
    assert plain_orientation(exif.tobytes()) == turn


def test_without_an_orientation_there_is_no_answer():
    exif = Image.Exif()
    exif.update({0x010F: "Camera", 0x0132: "2024:01:01 00:00:00"})
    assert plain_orientation(exif.tobytes()) is None
    assert plain_orientation(b"") is None
