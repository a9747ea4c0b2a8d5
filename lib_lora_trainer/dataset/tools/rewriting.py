"""One picture becomes another one, or several: under which names, and what becomes of its captions and its mask."""

from __future__ import annotations

from PIL import Image

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.masks import same_shape
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.tools.companions import following, new_path, png_path
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, remove, replace, write
from lib_lora_trainer.dataset.tools.pictures import Edit, FrameOf, Frames, Rewritten, Shape, is_png


def rewritten(dataset: Dataset, member: Member, size: tuple[int, int], edit: Edit, names: Names) -> list[Operation]:
    """Return the operations that replace a picture by an edited one, a PNG; another format's name becomes .png.

    size: of the picture, upright, in pixels. The original goes to the holding.
    """
    content = Rewritten(member.path, size, edit)
    if is_png(member.path):
        return [replace(member.path, content)]
    target = png_path(dataset, member, names)
    return [write(target, content), remove(member.path), *following(dataset, member, [target])]


def taken_apart(dataset: Dataset, member: Member, shape: Shape, names: Names) -> list[Operation]:
    """Return the operations that replace an animation, or a file with pages, by a PNG of every frame, each captioned.

    Frames are numbered from 1, with as many digits as the last one needs and four at least.
    """
    frames = Frames(member.path)
    digits = max(4, len(str(shape.frames)))
    operations: list[Operation] = []
    targets = []
    for frame in range(shape.frames):
        target = new_path(dataset, member, f"-{frame + 1:0{digits}d}", names)
        targets.append(target)
        operations.append(write(target, FrameOf(frames, frame)))
    return [*operations, remove(member.path), *following(dataset, member, targets)]


def mask_rewritten(member: Member, size: tuple[int, int], edit: Edit) -> tuple[list[Operation], Problem | None]:
    """Return the operations that do to a picture's mask what is done to the picture; none without a mask.

    size: of the picture before, to which a mask of another size is scaled first; edit: gets and returns 8-bit grey.
    A mask that cannot follow is a problem; then nothing may be done to the picture either.
    """
    mask = member.mask
    if mask is None:
        return [], None
    where = printable(mask)
    if mask in member.shared:
        fix = "Give one of the pictures another name, with a mask of its own."
        return [], Problem("warning", where, "is the mask of another picture as well.", fix)
    try:
        grey = open_grey(mask)
    except DataError as error:
        return [], Problem("warning", where, f"cannot be read: {error}", "Make it anew, or remove it.")
    if not same_shape(grey.size, size):
        text = f"is {grey.width}×{grey.height} pixels, which does not fit its picture's {size[0]}×{size[1]}."
        return [], Problem("warning", where, text, "Make it anew, or remove it.")
    if not is_png(mask):
        return [], Problem("warning", where, "is no PNG, and would lose by being saved again.", "Save it as PNG.")
    return [replace(mask, Rewritten(mask, grey.size, masked_alike(size, edit)))], None


def masked_alike(size: tuple[int, int], edit: Edit) -> Edit:
    """Return the edit of a mask that belongs to an edit of its picture, which is of a size in pixels."""

    def edited(image: Image.Image) -> Image.Image:
        if image.mode == "RGBA":  # transparent areas are black, as for training
            image = Image.composite(image.convert("RGB"), Image.new("RGB", image.size, 0), image.getchannel("A"))
        grey = image.convert("L")
        return edit(grey if grey.size == size else grey.resize(size, Image.Resampling.BILINEAR))

    return edited
