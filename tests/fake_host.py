"""A host without a model, and a training that only tells a story: what the tab and the runner need in a test."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.app.jobs import RunPaths
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Event, Finished, Phase, Planned, Progress, SampleMade, Saved
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import Lease, ModelInfo, NamedUpscaler, Needs

INFO = ModelInfo(
    host="fake", family="sd1", prediction="epsilon", title="toy.safetensors [0123456789]", name="toy",
    file="toy.safetensors", sha256="0123456789abcdef" * 4, vae="", text_encoders=("te",), latent_scale=0.18215,
    clip_skip=1, dtype="float32", device="cpu",
)  # fmt: skip
LAYERS = (
    Layer("unet", "input_blocks.1.1.transformer_blocks.0.attn1.to_q", 64, 64),
    Layer("te", "text_model.encoder.layers.0.self_attn.q_proj", 64, 64),
)


@dataclass
class FakeHost:
    """A host that answers questions and has no model to lease."""

    folder: Path
    model: ModelInfo = INFO
    announced: list[str] = field(default_factory=list)

    def info(self) -> ModelInfo:
        return self.model

    def layers(self) -> Sequence[Layer]:
        return LAYERS

    def lease(self, needs: Needs) -> Lease:
        raise AssertionError(f"nothing here trains, but a lease was asked for: {needs}")

    def samplers(self) -> tuple[str, ...]:
        return ("Euler a", "DDIM")

    def upscalers(self) -> tuple[NamedUpscaler, ...]:
        return ()

    def adapter_folder(self) -> str:
        return str(self.folder)

    def preset_files(self, name: str) -> tuple[Path, ...]:
        return tuple(self.folder.glob(f"*/scripts/{name}"))

    def announce(self, path: str) -> None:
        self.announced.append(path)


@dataclass
class Story:
    """A training of `steps` steps in 5 epochs; it remembers its last step in the run's folder and continues there.

    gate: when given, every step waits for it. pause: seconds per step. trouble: raised at step `trouble_at`.
    """

    steps: int = 20
    pause: float = 0.0
    gate: threading.Semaphore | None = None
    trouble: Exception | None = None
    trouble_at: int = 0
    closed: int = 0
    picture: Callable[[int], Image.Image] = lambda step: Image.new("RGB", (8, 8), (step % 256, 0, 0))

    def __call__(
        self, host: FakeHost, config: RunConfig, paths: RunPaths, control: Control
    ) -> Generator[Event, None, None]:
        try:
            yield from self._told(config, paths, control)
        finally:
            self.closed += 1

    def _told(self, config: RunConfig, paths: RunPaths, control: Control) -> Generator[Event, None, None]:
        memory, files = paths.run / "position.txt", tuple(map(str, sorted(paths.adapters.glob(f"{config.name}-*"))))
        first = int(memory.read_text()) if memory.exists() else 0
        yield Planned(config.name, ("a story",), self.steps, self.steps, 5)
        yield from (Phase("caching latents", done, 4) for done in range(5))
        for step in range(first + 1, self.steps + 1):
            if control.wish != "go":
                break
            if self.gate is not None:
                assert self.gate.acquire(timeout=10), "the test never let the story go on"
            time.sleep(self.pause)
            if self.trouble is not None and step == self.trouble_at:
                raise self.trouble
            memory.write_text(str(step))
            yield self._progress(step)
            if step % -(-self.steps // 5) == 0:
                path = paths.adapters / f"{config.name}-{step:06d}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"file")
                files = (*files, str(path))
                yield Saved(str(path), "adapter", step, self._epoch(step))
                yield from self._samples(config, paths, step)
        step = int(memory.read_text()) if memory.exists() else 0
        reasons = {"go": "done", "pause": "paused", "stop": "stopped"}
        yield Finished(reasons[control.wish] if step < self.steps else "done", step, files, 1.0)

    def _samples(self, config: RunConfig, paths: RunPaths, step: int) -> Generator[Event, None, None]:
        for index, prompt in enumerate(config.samples.prompts):
            path = paths.run / "samples" / f"step{step:08d}-{index + 1:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.picture(step + 1000 * index).save(path)
            yield SampleMade(str(path), prompt, 1 + index, step, self._epoch(step))

    def _epoch(self, step: int) -> int:
        return 1 + (step - 1) * 5 // self.steps

    def _progress(self, step: int) -> Progress:
        average = 0.08 + 0.06 * math.exp(-4 * step / self.steps)
        loss = average * (1 + 0.4 * math.sin(step * 12.9898) * math.cos(step * 4.1))
        return Progress(
            images_seen=step, total_images=self.steps, step=step, total_steps=self.steps, epoch=self._epoch(step),
            epochs=5, loss=loss, loss_average=average, learning_rates={"unet": 1e-4, "te": 5e-5},
            seconds_per_step=max(self.pause, 0.01), eta_seconds=(self.steps - step) * max(self.pause, 0.01),
        )  # fmt: skip
