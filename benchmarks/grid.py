"""Measures what a grid costs over the host making the same images one by one.

    python benchmarks/grid.py [--checkpoint FILE] [--side 256] [--steps 12] [--grids 3]
    SD_WEBUI_DIR=DIR PYTHON_OF_THE_WEBUI benchmarks/grid.py --webui [--side 256] [--steps 12] [--grids 3]

While a grid is made, each of its images is made once more beside it, by turns before and after, so that a busy machine
disturbs both alike: the grid's time is the whole without these. One by one means: the adapter is read already, its weight
is set, the image is made and saved as PNG with its infotext. A grid does that and more: it looks at every file, takes the
model, names and checks each image, flushes it to the disk, draws sheets, and writes a page with all images in it. With
`--webui` the WebUI's own `process_images` makes them, with `<lora:…>` in the prompt; its checkpoint is small and random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL.PngImagePlugin import PngInfo

import grid_cases
from lib_lora_trainer.adapters import existing, files
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.app import grid_attached, grid_jobs
from lib_lora_trainer.app.grid_jobs import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.evaluate.grid import Axis, GridConfig
from lib_lora_trainer.evaluate.grid_axes import Scene
from lib_lora_trainer.evaluate.grid_cells import prompt_of
from lib_lora_trainer.evaluate.grid_studio import Studio
from lib_lora_trainer.hosts.api import Lease, MadeImage, Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost

WEIGHTS = ("0.4", "0.6", "0.8", "1")
SEEDS = (1, 2)

Alone = Callable[[Scene], MadeImage]
"""Makes an image as the host does without a grid."""


class Measured(NamedTuple):
    """Seconds of a grid without what was made beside it, and of its images alone; cpu: of the process's own time, without
    what others took. before: of the grid until its first image is begun, after: from its last image to its end.
    """

    grid: float
    alone: float
    grid_cpu: float
    alone_cpu: float
    before: float
    after: float


class Beside:
    """A studio that makes every image once more, alone, and keeps the time of that apart."""

    def __init__(self, studio: Studio, alone: Alone, folder: Path) -> None:
        self._studio, self._alone, self._folder = studio, alone, folder
        self.seconds = self.cpu = self.begun = self.ended = 0.0
        self._made = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._studio, name)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Yield what makes an image twice."""
        with self._studio.opened() as paint:

            def both(scene: Scene, go_on: Callable[[], bool]) -> Any:
                self._made += 1
                self.begun = self.begun or time.perf_counter()
                if self._made % 2:
                    image = paint(scene, go_on)
                    self.beside(scene)
                else:
                    self.beside(scene)
                    image = paint(scene, go_on)
                self.ended = time.perf_counter()
                return image

            yield both

    def beside(self, scene: Scene) -> None:
        """Make and save an image alone."""
        began, began_cpu = time.perf_counter(), time.process_time()
        made = self._alone(scene)
        text = PngInfo()
        text.add_text("parameters", made.infotext)
        made.image.save(self._folder / f"{self._made}.png", format="PNG", pnginfo=text)
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - began_cpu


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def settings(options: argparse.Namespace, adapter: str) -> GridConfig:
    """Return the grid that is measured."""
    return GridConfig(
        prompt="1girl, smile", negative="blurred", adapter=adapter, seeds=SEEDS, steps=options.steps, guidance=5.0,
        width=options.side, height=options.side, sampler="Euler a", axes=(Axis("weight", WEIGHTS),),
    )  # fmt: skip


def once(studio: Studio, config: GridConfig, alone: Alone) -> Measured:
    """Make a grid and the same images alone, and return what each took."""
    with tempfile.TemporaryDirectory() as folder:
        both = Beside(studio, alone, Path(folder))
        began, began_cpu = time.perf_counter(), time.process_time()
        last = list(grid_jobs.run(both, Request(config, Path(folder) / "grid"), Control()))[-1]
        assert isinstance(last, Finished) and last.reason == "done", last
        ended, cpu = time.perf_counter(), time.process_time() - began_cpu
    return Measured(
        ended - began - both.seconds, both.seconds, cpu - both.cpu, both.cpu, both.begun - began, ended - both.ended
    )


def measure(name: str, studio: Studio, config: GridConfig, alone: Alone, options: argparse.Namespace) -> None:
    """Measure grids and write the row of the table."""
    once(studio, replace(config, steps=1, axes=()), alone)  # loads, compiles and fills caches
    found = [once(studio, config, alone) for _ in range(options.grids)]
    images = len(WEIGHTS) * len(SEEDS)
    middle = Measured(*(statistics.median(values) for values in zip(*found, strict=True)))
    ratios = sorted(each.grid / each.alone for each in found)
    cpu = sorted(each.grid_cpu / each.alone_cpu for each in found)
    say(
        "| where | s/image alone | grid over alone | range | CPU s/image alone | grid over alone | range | before | after |"
    )
    say("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    say(
        f"| {name} | {middle.alone / images:.2f} | {statistics.median(ratios):.3f} | {ratios[0]:.3f}–{ratios[-1]:.3f} | "
        f"{middle.alone_cpu / images:.2f} | {statistics.median(cpu):.3f} | {cpu[0]:.3f}–{cpu[-1]:.3f} | "
        f"{middle.before:.2f} s | {middle.after:.2f} s |"
    )
    say(f"{options.grids} grids of {images} images of {options.side} px, {options.steps} steps; medians of grids")


class Leased:
    """A host whose lease can be used beside the grid that holds it."""

    def __init__(self, host: StandaloneHost) -> None:
        self._host = host
        self.open: Lease | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def lease(self, needs: Needs) -> Lease:
        """Return the host's lease and remember it."""
        self.open = self._host.lease(needs)
        return self.open


def standalone(options: argparse.Namespace) -> None:
    """Compare grids on a checkpoint file with the same lease used by hand."""
    with tempfile.TemporaryDirectory() as folder:
        host = Leased(StandaloneHost(options.checkpoint, Path(folder)))
        adapter = Path(grid_cases.write_adapter(host, Path(folder) / "adapter.safetensors"))
        studio = grid_attached.AttachedStudio(lambda _: host)
        measure("standalone", studio, settings(options, str(adapter)), by_lease(host, adapter), options)


def by_lease(host: Leased, file: Path) -> Alone:
    """Return what makes images with a lease: the adapter attached to the model, its weight set for each of them."""
    read: dict[Layer, torch.nn.Module] = {}

    def make(scene: Scene) -> MadeImage:
        lease = host.open
        assert lease is not None
        targets, family = lease.targets(), lease.info.family
        if not read:
            restored = files.from_tensors(existing.read(file), targets, family)
            read.update({layer: each.eval() for layer, each in restored.items()})
        acting = {}
        for worn in scene.worn:
            ratios = grid_attached.ratios(worn, read, family)
            acting = {layer: [(read[layer], ratio)] for layer, ratio in ratios.items()}
        with grid_attached.worn_by(targets, acting):
            return next(iter(lease.generate([grid_attached.request_of(scene)])))

    return make


def webui(options: argparse.Namespace) -> None:
    """Compare grids in the real WebUI with its own `process_images`."""
    from webui_session import begin_real

    with tempfile.TemporaryDirectory() as folder:
        session = begin_real(Path(os.environ["SD_WEBUI_DIR"]), Path(folder))
        from lib_lora_trainer.hosts.webui.grid_images import WebuiStudio
        from lib_lora_trainer.hosts.webui.host import WebuiHost

        host = WebuiHost()
        adapter = grid_cases.write_adapter(host, session.lora_folder / "adapter.safetensors")
        host.announce(adapter)

        def make(scene: Scene) -> MadeImage:
            made = session.txt2img(
                prompt_of(scene), negative_prompt=scene.negative, seed=scene.seed, steps=scene.steps,
                cfg_scale=scene.guidance, width=scene.width, height=scene.height, sampler_name=scene.sampler,
            )  # fmt: skip
            return MadeImage(made.images[0], made.infotexts[0], grid_attached.request_of(scene))

        measure("WebUI", WebuiStudio(), settings(options, adapter), make, options)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--webui", action="store_true", help="in the WebUI that SD_WEBUI_DIR names, by its own Python")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--grids", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="so small models are slower with more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.webui:
        webui(options)
    else:
        standalone(options)


if __name__ == "__main__":
    main()
