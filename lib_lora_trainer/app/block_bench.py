"""Images of sets of an adapter's blocks: made where they are missing, kept, and looked at by the tagger."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lib_lora_trainer.app.block_sets import FileBlocks
from lib_lora_trainer.app.threaded import Stopped
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Event, Note, Phase, SampleMade
from lib_lora_trainer.evaluate import grid_axes, grid_cells
from lib_lora_trainer.evaluate.blocks import Seen
from lib_lora_trainer.evaluate.blocks_options import BlockOptions, Shot
from lib_lora_trainer.evaluate.grid import GridConfig
from lib_lora_trainer.evaluate.grid_axes import Scene, Worn
from lib_lora_trainer.evaluate.grid_studio import Paint, Studio
from lib_lora_trainer.evaluate.pick_files import AdapterFile
from lib_lora_trainer.evaluate.pick_store import Store
from lib_lora_trainer.tagging import wd14
from lib_lora_trainer.tagging.wd14 import Tagger

_TIMED = 3  # images after which the rest is estimated: the first one loads and compiles


@dataclass(frozen=True)
class Counted:
    """How far a phase is. total: images that are looked at; missing: of them those to be made, 0 for no estimate.

    done: those that were looked at before.
    """

    name: str
    total: int
    missing: int = 0
    done: int = 0


class Bench:
    """The model with a file's blocks. images: made by now; an image that is kept is not made again."""

    def __init__(
        self,
        studio: Studio,
        file: AdapterFile,
        inside: FileBlocks,
        options: BlockOptions,
        store: Store,
        control: Control,
    ) -> None:
        self.images = 0
        self._studio, self._inside, self._store, self._control = studio, inside, store, control
        settings = GridConfig(
            negative=options.negative, steps=options.steps, guidance=options.guidance, width=options.side, height=options.side,
            sampler=options.sampler, clip_skip=options.clip_skip,
        )  # fmt: skip
        self._plain = grid_axes.base(settings)
        self._worn = Worn(str(file.path), options.weight, options.weight)
        self._digests = {str(file.path): file.digest}
        self._made_by = studio.made_by(self._plain)
        self._stack: ExitStack | None = None
        self._paint: Paint | None = None
        self._tagger: Tagger | None = None
        self._began = time.monotonic()

    @contextmanager
    def at_work(self, tagger: Tagger) -> Iterator[None]:
        """Have images made and looked at within; the model is taken at the first one that is missing."""
        with ExitStack() as stack:
            self._stack, self._tagger = stack, tagger
            try:
                yield
            finally:
                self._stack = self._paint = self._tagger = None

    def scene(self, chosen: Collection[str], shot: Shot) -> Scene:
        """Return what an image of a set of blocks is made from; the base model's has no adapter."""
        worn: Worn | None = replace(self._worn, blocks=self._inside.weights(chosen))
        if not chosen and not self._inside.outside:
            worn = None
        return replace(self._plain, prompt=shot.prompt, seed=shot.seed, adapter=worn)

    def name(self, chosen: Collection[str], shot: Shot) -> str:
        """Return the name under which an image is kept: a digest of everything that decides about it."""
        return grid_cells.key(grid_cells.facts(self.scene(chosen, shot), self._made_by, self._digests))

    def measured(
        self, chosen: frozenset[str], shots: Sequence[Shot], counted: Counted
    ) -> Generator[Event, None, tuple[Seen, ...]]:
        """Return the images of a set of blocks with what the tagger says. Raises Stopped on the user's wish."""
        assert self._tagger is not None
        seen = []
        for number, shot in enumerate(shots, counted.done + 1):
            if self._control.wish != "go":
                raise Stopped
            name = self.name(chosen, shot)
            image = self._store.load_image(name)
            if image is None:
                image = self._painted(self.scene(chosen, shot), name)
                yield SampleMade(str(self._store.image(name)), shot.prompt, shot.seed, self.images, 0)
                if counted.missing and (self.images == _TIMED or self.images % (10 * len(shots)) == 0):
                    yield self._estimate(counted.missing - self.images)
            row = self._store.load_scores(name, len(self._tagger.labels))
            if row is None:
                row = wd14.probabilities(self._tagger, [image])[0]
                self._store.put_scores(name, row)
                # As it will be read the next time, so that work in one go and work that went on agree.
                row = row.astype(np.float16).astype(np.float32)
            seen.append(Seen(image, row))
            yield Phase(counted.name, number, counted.total)
        return tuple(seen)

    def _painted(self, scene: Scene, name: str) -> Image.Image:
        if self._paint is None:
            assert self._stack is not None
            self._paint = self._stack.enter_context(self._studio.opened())
            self._began = time.monotonic()
        made = self._paint(scene, lambda: self._control.wish == "go")
        if made is None:  # stopped here, or interrupted in the WebUI
            raise Stopped
        self._store.put_image(name, made)
        self.images += 1
        return made.image.convert("RGB")

    def _estimate(self, left: int) -> Note:
        seconds = (time.monotonic() - self._began) / self.images * max(0, left)
        shown = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        return Note("note", f"About {shown} for the {max(0, left)} images of the analysis that are left.")
