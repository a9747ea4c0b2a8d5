"""Sample images of the adapter in training, through the host's own sampler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from lib_lora_trainer.base.events import Event, Phase, SampleMade
from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import ImageRequest, Lease
from lib_lora_trainer.train.state import Position


def requests(config: RunConfig) -> tuple[ImageRequest, ...]:
    """Return one request per prompt; seeds count up from the configured one, so every epoch draws the same noise."""
    samples = config.samples
    return tuple(
        ImageRequest(
            prompt=prompt,
            negative=samples.negative,
            seed=samples.seed + index,
            steps=samples.steps,
            guidance=samples.guidance,
            width=samples.width or config.data.resolution,
            height=samples.height or config.data.resolution,
            sampler=samples.sampler,
            clip_skip=config.training.clip_skip,
        )
        for index, prompt in enumerate(samples.prompts)
    )


def make(lease: Lease, config: RunConfig, folder: Path, position: Position) -> Iterator[Event]:
    """Make the samples, write them as PNG with their parameter text, and report each."""
    wanted = requests(config)
    yield from (Phase("making samples", 0, len(wanted)) for _ in wanted[:1])
    for index, made in enumerate(lease.generate(wanted)):
        path = folder / f"step{position.step:08d}-{index + 1:02d}.png"
        text = PngInfo()
        text.add_text("parameters", made.infotext)
        with replacing(path) as temporary:
            made.image.save(temporary, format="PNG", pnginfo=text)
        yield SampleMade(str(path), made.request.prompt, made.request.seed, position.step, position.epoch)
        yield Phase("making samples", index + 1, len(wanted))
