"""An adapter whose blocks' effects are known: a studio paints what they say, and a tagger reads it off the colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

import onnx_models
from lib_lora_trainer.adapters.keys import file_key
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.app.block_jobs import BlocksRequest
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.evaluate.blocks_options import BlockOptions
from lib_lora_trainer.evaluate.grid_axes import Scene
from lib_lora_trainer.evaluate.grid_studio import Paint
from lib_lora_trainer.hosts.values import ImageRequest, MadeImage
from lib_lora_trainer.tagging.models import Found, in_folder
from lib_lora_trainer.workshop import presets

TRIGGER = "mikori"
TRAITS = ("blue_eyes", "green_skirt", "red_hair")  # in the order of the channels, which the tagger takes as BGR
PATHS = {
    "BASE": Layer("te", "text_model.encoder.layers.0.self_attn.q_proj", 2, 2),
    **{
        name: Layer("unet", f"{path}.transformer_blocks.0.attn1.to_q", 2, 2)
        for name, path in {
            "IN01": "input_blocks.1.1", "IN04": "input_blocks.4.1", "MID": "middle_block.1",
            "OUT03": "output_blocks.3.1", "OUT04": "output_blocks.4.1", "OUT05": "output_blocks.5.1",
        }.items()
    },
    "": Layer("unet", "time_embed.0", 2, 2),
}  # fmt: skip
BLOCKS = tuple(name for name in PATHS if name)

Brings = Callable[[frozenset[str], int], Sequence[bool]]
"""Which of the three traits an image shows, by the blocks that are on and the image's seed."""


NEEDED = {"blue_eyes": "IN04", "green_skirt": "OUT04", "red_hair": "MID"}


def additive(on: frozenset[str], seed: int) -> list[bool]:
    """Each trait comes of one block, whatever the others do."""
    return [NEEDED[trait] in on for trait in TRAITS]


@dataclass
class KnownStudio:
    """Paints a plain image: a channel is bright where its trait is shown. painted: the scenes, in order."""

    brings: Brings
    family_name: str = "sd1"
    painted: list[Scene] = field(default_factory=list)
    opened_times: int = 0

    def family(self) -> str:
        return self.family_name

    def made_by(self, scene: Scene) -> Mapping[str, str]:
        assert scene.checkpoint == ""
        return {"host": "known", "model": "m"}

    def problems(self, scenes: Sequence[Scene]) -> tuple[Problem, ...]:
        wrong = [each for each in scenes if each.sampler == "none"]
        return (Problem("error", "sampler", "'none' is not a sampler here."),) if wrong else ()

    def blocks_of(self, scene: Scene) -> frozenset[str]:
        """Return the blocks that act."""
        if scene.adapter is None:
            return frozenset()
        if not scene.adapter.blocks:
            return frozenset(BLOCKS)
        vector = presets.choose(scene.adapter.blocks, "sd1")
        return frozenset(block for block in BLOCKS if vector.of(block))

    def paint(self, scene: Scene, go_on: Callable[[], bool]) -> MadeImage | None:
        if not go_on():
            return None
        self.painted.append(scene)
        on = self.blocks_of(scene)
        shown = self.brings(on, scene.seed) if TRIGGER in scene.prompt else [False] * 3
        blue, green, red = (250 if each else 10 for each in shown)
        image = Image.new("RGB", (scene.width, scene.height), (red, green, blue))
        request = ImageRequest(
            scene.prompt, scene.negative, scene.seed, scene.steps, scene.guidance, 64, 64, "Euler a", 1
        )
        return MadeImage(image, "facts", request)

    @contextmanager
    def opened(self) -> Iterator[Paint]:
        self.opened_times += 1
        yield self.paint


def adapter(path: Path, blocks: Sequence[str] = BLOCKS) -> Path:
    """Write an adapter with one layer in each of some blocks."""
    tensors = {}
    for block in blocks:
        name = file_key(PATHS[block], "sd1")
        tensors |= {f"{name}.lora_up.weight": torch.ones(2, 1), f"{name}.lora_down.weight": torch.ones(1, 2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), {"ss_base_model_version": "sd_v1"})
    return path


def tagger(folder: Path) -> Found:
    rows = [f"{number},{name},0,10" for number, name in enumerate(TRAITS)]
    found = in_folder(onnx_models.tagger(folder, rows=rows))
    assert found is not None
    return found


def request(folder: Path, **options: object) -> BlocksRequest:
    """Return a request about pictures that show all three traits, captioned with the trigger and what is worn."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        Image.new("RGB", (64, 64), (250, 250, 250 - number)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"{TRIGGER}, smile", encoding="utf-8")
    chosen = BlockOptions(**{"prompts": (f"{TRIGGER}, smile", "1girl"), "seeds": 2, "side": 64, **options})
    config = RunConfig(triggers=(TRIGGER,), data=DataConfig(sources=(SourceConfig(str(pictures)),)))
    return BlocksRequest(
        adapter(folder / "a.safetensors"), config, tagger(folder / "tagger"), folder / "out", options=chosen
    )


def without(asked: BlocksRequest, *blocks: str) -> BlocksRequest:
    """Return the request for a file that lacks some blocks."""
    return replace(asked, file=adapter(asked.file, [block for block in BLOCKS if block not in blocks]))
