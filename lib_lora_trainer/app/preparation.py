"""From a plan to a run that can begin: adapters, optimizer, encoded pictures, the state to go on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib_lora_trainer.adapters import existing, files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.events import Event, Note
from lib_lora_trainer.captions.variants import Moment, effective, vary
from lib_lora_trainer.dataset.digests import ContentDigests
from lib_lora_trainer.dataset.order import Length
from lib_lora_trainer.diffusion import schedule
from lib_lora_trainer.hosts.api import Idle, Lease, Needs, PictureSize, TextRequest
from lib_lora_trainer.plan.plan import Plan, settled_noise
from lib_lora_trainer.train import average, batches, optim, processes, state
from lib_lora_trainer.train.cache import LatentCache
from lib_lora_trainer.train.run import Model, Outputs, Run
from lib_lora_trainer.train.state import Position
from lib_lora_trainer.train.text_cache import TextCache

CHUNK_TOKENS = 75

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Prepared:
    """What can be trained, and from where. adapters: on the lease's device."""

    adapters: Mapping[Layer, torch.nn.Module]
    live: state.Live
    material: batches.Material
    model: Model
    belongs_to: str

    def run(self, settled: Plan, outputs: Outputs) -> Run:
        """Return the run itself."""
        group = processes.processes(self.model.lease.device)
        return Run(settled.config, self.model, self.material, self.live, length(settled), group, outputs)


def length(settled: Plan) -> Length:
    """Return how long a planned run is."""
    return Length(settled.images, settled.steps, settled.epochs)


def needs(settled: Plan) -> Needs:
    """Return what a run asks of the host."""
    training = settled.config.training
    return Needs(
        compute_dtype=DTYPES[settled.precision],
        text_encoder_gradient=trains_text(settled),
        gradient_checkpointing=training.gradient_checkpointing,
        fp8_base=training.fp8_base,
        channels_last=training.channels_last,
        compile=training.compile,
        offload=training.offload,
    )


def trains_text(settled: Plan) -> bool:
    """Tell whether text encoders are trained, at least for a part of the run."""
    return any(layer.part != "unet" for layer in settled.layers)


def prepare(lease: Lease, settled: Plan, cache: Path) -> Iterator[Event | Prepared]:
    """Build everything a run needs on a lease, reporting what takes time; the last value is Prepared.

    cache: folder for what is kept on disk. Raises NumericalError naming a picture the VAE cannot encode.
    """
    config = settled.config
    adapters, chosen = build_adapters(lease, settled)
    rates = {layer: settled.assignments[layer].rate if settled.assignments else 1.0 for layer in adapters}
    optimizer = optim.build(adapters, rates, methods.up_parameters, config.optimizer)
    averages = average.start(adapters) if config.training.ema else None
    live = state.Live(adapters, optimizer, _scaler(lease.device, settled.precision), averages)
    yield from _too_long(lease, settled)
    latents = LatentCache(config.data, cache / "latents", lease, config.loss.masked)
    yield from latents.fill(settled.scan.items, settled.views, processes.processes(lease.device))
    material = batches.Material(settled.scan.items, settled.views, latents, length(settled))
    texts = None
    if config.data.cache_text != "none" and not trains_text(settled):
        texts = TextCache(config.data.cache_text, cache / "texts", lease)
        yield from texts.fill(text_requests(lease, settled), lease)
    idle: list[Idle] = ["vae"] if config.data.cache != "none" else []
    idle += ["text"] if texts else []
    lease.idle(*idle)
    model = Model(lease, Attachment(chosen, adapters), _schedule(lease, settled), texts)
    belongs_to = state.fingerprint(config, _digest(settled, latents.digests), lease.info.sha256 or lease.info.name)
    yield Prepared(adapters, live, material, model, belongs_to)


def build_adapters(lease: Lease, settled: Plan) -> tuple[dict[Layer, torch.nn.Module], Sequence[Target]]:
    """Return new adapters for the plan's layers, or those of `adapter.start_from`, on the device; and their targets."""
    config = settled.config
    wanted = [target for target in lease.targets() if target.layer in settled.counts]
    if config.adapter.start_from:
        tensors = existing.read(Path(config.adapter.start_from))
        built = files.from_tensors(tensors, wanted, lease.info.family, config.adapter)
    else:
        built = {
            target.layer: methods.build(
                target, settled.assignments[target.layer], config.adapter, config.training.seed
            )
            for target in wanted
        }
    return {layer: adapter.to(lease.device).train() for layer, adapter in built.items()}, wanted


def resume(prepared: Prepared, path: Path, steps: int) -> Iterator[Note | Position]:
    """Put a saved state in force if there is one; the last value is the position to go on from.

    Raises RunConflict, naming the difference, for the state of another run.
    """
    if not path.exists():
        yield Position(0, 0, 0, 0.0, 0.0, ())
        return
    position = state.load(path, prepared.live, prepared.belongs_to)
    yield Note("note", f"Continuing after step {position.step} of {steps}.")
    yield position


def text_requests(lease: Lease, settled: Plan) -> list[TextRequest]:
    """Return what a run whose captions never vary asks of the text encoders, each caption in every length it may get.

    Captions of a batch are padded to its longest, so a caption may be read with more chunks than it needs.
    """
    training, caption = settled.config.training, settled.config.data.caption
    found: list[TextRequest] = []
    longest = training.token_limit // CHUNK_TOKENS
    counts: list[tuple[str, PictureSize, int]] = []
    for view in settled.views:
        item = settled.scan.items[view.item]
        text = vary(item.caption, effective(caption, settled.config.data.sources[item.source]), 0, Moment(0.0, 0, 1, 1))
        chunks = min(longest, lease.count_chunks((text,), caption.emphasis)[0])
        mirrored = (False, True) if view.mirrored else (False,)
        counts += [(text, batches.size_of(view.placement, flipped), chunks) for flipped in mirrored]
    lengths = {chunks for _, _, chunks in counts}
    for text, size, chunks in counts:
        found += [
            TextRequest((text,), training.clip_skip, length_, (size,), caption.emphasis)
            for length_ in sorted(lengths)
            if length_ >= chunks
        ]
    return found


def _schedule(lease: Lease, settled: Plan) -> torch.Tensor:
    fixed = settled_noise(settled.config.noise, lease.info).zero_terminal_snr == "on"
    return schedule.rescale_zero_terminal_snr(lease.alphas_cumprod) if fixed else lease.alphas_cumprod


def _too_long(lease: Lease, settled: Plan) -> Iterator[Note]:
    limit, caption = settled.config.training.token_limit, settled.config.data.caption
    captions = [f"{caption.prefix} {item.caption} {caption.suffix}" for item in settled.scan.items]
    names = [
        item.path.name
        for item, chunks in zip(settled.scan.items, lease.count_chunks(captions, caption.emphasis), strict=True)
        if chunks > limit // 75
    ]
    if names:
        text = f"{len(names)} captions are longer than {limit} tokens and are cut, e.g. {', '.join(names[:5])}."
        yield Note("warning", f"{text} Shorten them, or raise training.token_limit.")


def _digest(settled: Plan, digests: ContentDigests) -> str:
    facts = [_facts(settled, index, digests) for index in range(len(settled.views))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _facts(settled: Plan, index: int, digests: ContentDigests) -> list[Any]:
    """Return what of a picture shapes the weights: content, caption, repeats, size and mask."""
    view = settled.views[index]
    item = settled.scan.items[view.item]
    mask = digests.of(item.mask) if item.mask else ""
    placed = [list(view.placement.scaled), list(view.placement.crop)]
    return [digests.of(item.path), item.caption, item.repeats, item.regularization, mask, *placed]


def _scaler(device: torch.device, precision: str) -> Any:
    enabled = precision == "fp16" and device.type == "cuda"
    newer = getattr(torch.amp, "GradScaler", None)  # torch 2.3 and later; 2.1 has it under torch.cuda.amp alone
    return newer(device.type, enabled=enabled) if newer else torch.cuda.amp.GradScaler(enabled=enabled)
