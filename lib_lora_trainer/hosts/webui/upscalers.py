"""The WebUI's upscalers: all that its lists show, each used as the Extras tab uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from modules import call_queue, devices, shared
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.hosts.api import NamedUpscaler
from lib_lora_trainer.hosts.webui import restoring

JOB = "lora-trainer upscale"
OURS = ("None", "Lanczos")  # Lanczos is there without the WebUI, too
ROUNDS = 3  # times that a model may be applied to one picture, as in the WebUI


def listed() -> tuple[NamedUpscaler, ...]:
    """Return what the WebUI lists now, in its order; of several with one name the first counts, as in the WebUI."""
    found: dict[str, NamedUpscaler] = {}
    for data in shared.sd_upscalers:
        if data.name not in OURS and data.scaler is not None:
            found.setdefault(data.name, NamedUpscaler(data.name, partial(_upscaled, data), _download(data)))
    return tuple(found.values())


def _upscaled(data: Any, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an RGB picture enlarged to about a size or larger, of the same shape.

    One picture is one turn in the WebUI's queue, so that images can be made between two of them. Interrupt ends it.
    Raises DataError when that was pressed, and when the upscaler gives the picture back as it was: the WebUI's own loop
    then enlarges it by Lanczos without a word (`Upscaler.upscale`, version 1.10.1), which is not what was asked for
    (`test_an_upscaler_that_does_nothing_is_an_error`).
    """
    with ExitStack() as stack:
        stack.enter_context(call_queue.queue_lock)
        stack.enter_context(restoring.job_shown(JOB))
        stack.enter_context(restoring.random_state_kept())
        stack.enter_context(_left_as_it_was(data.scaler))
        restoring.clear_interruption()
        for _ in range(ROUNDS):
            factor = max(size[0] / image.width, size[1] / image.height)
            if factor <= 1:
                break
            data.scaler.scale = factor
            larger = data.scaler.do_upscale(image, data.data_path)
            if shared.state.interrupted or shared.state.skipped:
                raise DataError(f"{data.name}: was interrupted. What is enlarged already is kept for the next attempt.")
            if larger.width <= image.width:
                text = f"{data.name}: gave a picture of {image.width}×{image.height} pixels back as it was."
                raise DataError(f"{text} The WebUI's console says why; choose another upscaler.")
            image = larger
    return image


@contextmanager
def _left_as_it_was(scaler: Any) -> Iterator[None]:
    """Put an upscaler's attributes back, so that a model it keeps leaves the device unless it was there before."""
    before = dict(vars(scaler))
    try:
        yield
    finally:
        vars(scaler).clear()
        vars(scaler).update(before)
        devices.torch_gc()


def _download(data: Any) -> str:
    """Return the address from which an upscaler would fetch its model when it is used, "" if it is there."""
    path = str(getattr(data, "local_data_path", None) or data.data_path or "")
    if not path.startswith("http"):
        return ""
    folder = getattr(data.scaler, "model_download_path", None) or getattr(data.scaler, "model_path", None)
    stem = str(getattr(data.scaler, "model_name", None) or "").replace(" ", "_")
    names = (PurePosixPath(path).name, f"{stem}.pth")
    return "" if folder and any(Path(folder, name).is_file() for name in names) else path
