"""The orientation in EXIF data that are in order, a few times faster than all of them are read."""

from __future__ import annotations

import struct

ORIENTATION = 0x0112  # EXIF 2.32, table 4
_MARK = b"Exif\x00\x00"  # in front of the data in a JPEG's APP1 segment; Pillow puts it before those of a PNG too
_HEADERS = {b"II*\x00": "<", b"MM\x00*": ">"}  # TIFF 6.0, section 2: image file header
_FIELDS = {  # where the first directory is, how many entries it has, and an entry: tag, type, count, value or its place
    order: (struct.Struct(f"{order}I"), struct.Struct(f"{order}H"), struct.Struct(f"{order}HHII")) for order in "<>"
}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes, TIFF 6.0, section 2: types
_SHORT = 3
_ENTRY = 12  # bytes


def plain_orientation(exif: bytes) -> int | None:
    """Return the orientation that the first directory of EXIF data has, as it stands there; None where that is not plain.

    Plain: the entries are in order, as TIFF 6.0 wants them, and none of those before it reaches beyond the data. For all
    else somebody has to look who knows what to make of it, as Pillow does, which reads every entry.
    """
    begin = len(_MARK) if exif.startswith(_MARK) else 0
    order = _HEADERS.get(exif[begin : begin + 4])
    if order is None or len(exif) < begin + 8:
        return None
    offsets, counts, fields = _FIELDS[order]
    (first,) = offsets.unpack_from(exif, begin + 4)
    place = begin + first
    if first < 8 or place + 2 > len(exif):
        return None
    (count,) = counts.unpack_from(exif, place)
    entries = exif[place + 2 : place + 2 + count * _ENTRY]
    before, value = 0, None
    for tag, kind, values, offset in fields.iter_unpack(entries[: len(entries) // _ENTRY * _ENTRY]):
        if tag <= before:  # none stands twice
            return None
        before = tag
        if tag == ORIENTATION:
            # A value of two bytes stands at the beginning of the four.
            value = (offset >> 16 if order == ">" else offset & 0xFFFF) if (kind, values) == (_SHORT, 1) else None
        elif tag < ORIENTATION:
            size = values * _SIZES.get(kind, 0)
            if size == 0 or (size > 4 and begin + offset + size > len(exif)):
                return None
    return value
