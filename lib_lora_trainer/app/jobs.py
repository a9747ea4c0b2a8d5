"""User intentions as generators of events: plan a run, train it."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.events import Event, Note, Planned, Saved
from lib_lora_trainer.base.files import sha256, write_text
from lib_lora_trainer.captions.stats import tag_frequency
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.hosts.api import Host, Lease, Needs
from lib_lora_trainer.plan import describe
from lib_lora_trainer.plan.plan import Machine, Plan, make, resolve_precision
from lib_lora_trainer.save import metadata, writer
from lib_lora_trainer.train import batches, cache, loop, optim, samples, speed, state

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_RESERVATION = "run.json"


@dataclass(frozen=True)
class RunPaths:
    """run: the folder of one run (state, samples). adapters: where the files for the Lora list go."""

    run: Path
    adapters: Path


@dataclass(frozen=True)
class Identity:
    """What tells a run's files from another's. stem: begins their names; started: seconds since 1970."""

    stem: str
    session: str
    started: float


def plan(host: Host, config: RunConfig, outputs: Path) -> Plan:
    """Return the plan of a run on what the host has loaded. Raises HostRefusal when nothing trainable is."""
    info = host.info()
    precision = resolve_precision(config.training.precision, info)
    device = torch.device(info.device)
    flops = speed.flops_per_second(device, _DTYPES[precision]) if _runs(info.device, precision) else None
    return make(info, host.layers(), config, scan(config.data, config.triggers), Machine(flops, outputs))


def _runs(device: str, precision: str) -> bool:
    return not (device == "cpu" and precision == "fp16")  # which the plan refuses


def train(host: Host, config: RunConfig, paths: RunPaths, control: Control) -> Iterator[Event]:
    """Train an adapter; the last event is Finished.

    A saved state in `paths.run` is continued. Raises ProblemsFound with all of the user's mistakes before anything
    starts, HostRefusal, NumericalError, or RunConflict for a state of another run.
    Closing the generator ends the lease.
    """
    settled = plan(host, config, paths.adapters)
    if settled.errors:
        raise ProblemsFound(settled.errors)
    identity = _identity(paths, config.name)
    if identity.stem != config.name:
        yield Note("note", f"Files named {config.name} exist already; this run's are named {identity.stem}.")
    for problem in settled.problems:
        yield Note(problem.severity, str(problem))
    yield Planned(identity.stem, describe.lines(settled), settled.images, settled.steps, settled.epochs)
    needs = Needs(_DTYPES[settled.precision], config.adapter.text_encoder, config.training.gradient_checkpointing)
    with host.lease(needs) as lease:
        yield from _train_on(lease, settled, paths, identity, control, host)


def _train_on(
    lease: Lease, settled: Plan, paths: RunPaths, identity: Identity, control: Control, host: Host
) -> Iterator[Event]:
    config, items = settled.config, settled.scan.items
    wanted = {target.layer: target for target in lease.targets() if target.layer in set(settled.layers)}
    adapters = {
        layer: methods.build(wanted[layer], config.adapter, config.training.seed).to(lease.device)
        for layer in settled.layers
    }
    live = state.Live(adapters, optim.build(adapters, config.optimizer), _scaler(lease.device, settled.precision))
    digest = hashlib.sha256(json.dumps([_facts(settled, index) for index in range(len(items))]).encode()).hexdigest()
    belongs_to = state.fingerprint(config, digest, lease.info.sha256 or lease.info.name)
    state_file = paths.run / state.FILE
    position = state.Position(0, 0, 0, 0.0, 0.0, ())
    if state_file.exists():
        position = state.load(state_file, live, belongs_to)
        yield Note("note", f"Continuing after step {position.step} of {settled.steps}.")
    yield from _too_long(lease, settled)
    attachment = Attachment(list(wanted.values()), adapters)
    latents: cache.Cache = {}
    paths_of_items = [item.path for item in items]
    yield from cache.fill(latents, lease, paths_of_items, settled.placements, config.data.flip)
    subject = _subject(settled, identity)

    def save_adapter(position: state.Position, label: str) -> Iterator[Saved]:
        path = writer.path_for(writer.Place(paths.adapters, identity.stem, identity.session), label)
        moment = metadata.Moment(position.step, position.epoch, position.loss_average, time.time())
        tensors = files.to_tensors(adapters, lease.info.family, _DTYPES[config.save.precision])
        writer.write(path, tensors, metadata.build(config, subject, moment, path.stem))
        writer.write_beside(path, config, lease.info, _newest(paths.run / "samples"))
        host.announce(str(path))
        yield Saved(str(path), "adapter", position.step, position.epoch)

    def make_samples(position: state.Position) -> Iterator[Event]:
        return samples.make(lease, config, paths.run / "samples", position)

    run = loop.Run(
        config=config,
        lease=lease,
        material=batches.Material(items, settled.placements, latents),
        attachment=attachment,
        live=live,
        length=loop.Length(settled.images, settled.steps, settled.epochs),
        state_file=state_file,
        belongs_to=belongs_to,
        save_adapter=save_adapter,
        make_samples=make_samples,
    )
    with attachment:
        yield from loop.train(run, position, control)


def _too_long(lease: Lease, settled: Plan) -> Iterator[Note]:
    limit = settled.config.training.token_limit
    captions = [f"{settled.config.data.caption.prefix} {item.caption}" for item in settled.scan.items]
    names = [
        item.path.name
        for item, chunks in zip(settled.scan.items, lease.count_chunks(captions), strict=True)
        if chunks > limit // 75
    ]
    if names:
        text = f"{len(names)} captions are longer than {limit} tokens and are cut, e.g. {', '.join(names[:5])}."
        yield Note("warning", f"{text} Shorten them, or raise training.token_limit.")


def _identity(paths: RunPaths, name: str) -> Identity:
    """Return the run's identity, settled once per run folder so that a resumed run writes its own files again."""
    record = paths.run / _RESERVATION
    if record.exists():
        values: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if set(values) != {"stem", "session", "started"}:
            raise ConfigError(f"{record}: this is not a run's record. Move it away, or choose another run folder.")
        return Identity(**values)
    identity = Identity(writer.free_stem(paths.adapters, name), str(uuid.uuid4().int >> 64), time.time())
    write_text(record, json.dumps(asdict(identity)))
    return identity


def _facts(settled: Plan, index: int) -> list[Any]:
    """Return what of a picture shapes the weights: content, caption, repeats and size."""
    item, placement = settled.scan.items[index], settled.placements[index]
    return [sha256(item.path), item.caption, item.repeats, list(placement.scaled), list(placement.crop)]


def _subject(settled: Plan, identity: Identity) -> metadata.Subject:
    folders = metadata.folder_names(settled.concepts)
    captions: dict[str, list[str]] = {}
    for item in settled.scan.items:
        captions.setdefault(folders[item.concept], []).append(item.caption)
    return metadata.Subject(
        session=identity.session,
        started=identity.started,
        model=settled.info,
        concepts=settled.concepts,
        tag_frequency=tag_frequency(captions),
        placements=settled.placements,
        steps_total=settled.steps,
    )


def _newest(folder: Path) -> Path | None:
    # Step 0 shows the model without the adapter.
    pictures = [path for path in folder.glob("step*-01.png") if path.name != "step00000000-01.png"]
    return max(pictures, default=None)


def _scaler(device: torch.device, precision: str) -> Any:
    enabled = precision == "fp16" and device.type == "cuda"
    newer = getattr(torch.amp, "GradScaler", None)  # torch 2.3 and later; 2.1 has it under torch.cuda.amp alone
    return newer(device.type, enabled=enabled) if newer else torch.cuda.amp.GradScaler(enabled=enabled)
