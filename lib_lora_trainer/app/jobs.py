"""User intentions as generators of events: plan a run, train it, search a learning rate."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lib_lora_trainer.adapters import files
from lib_lora_trainer.app import preparation
from lib_lora_trainer.app.preparation import DTYPES, Prepared
from lib_lora_trainer.base import launch
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Note, Phase, Planned, Saved
from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.captions.stats import tag_frequency
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import whole
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.hosts.api import Host, Lease
from lib_lora_trainer.plan import checks, describe
from lib_lora_trainer.plan.plan import Machine, Plan, make, resolve_precision
from lib_lora_trainer.save import metadata, writer
from lib_lora_trainer.train import loop, optim, rate_finder, samples, speed, state, tensorboard
from lib_lora_trainer.train.run import Outputs
from lib_lora_trainer.train.state import Position

_RESERVATION = "run.json"


@dataclass(frozen=True)
class RunPaths:
    """run: the folder of one run (state, samples, logs). adapters: where the files for the Lora list go.

    cache: what can be computed again and serves other runs as well; None puts it into the run's folder.
    """

    run: Path
    adapters: Path
    cache: Path | None = None

    @property
    def kept(self) -> Path:
        """The cache folder."""
        return self.cache or self.run / "cache"


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
    flops = speed.flops_per_second(device, DTYPES[precision]) if _runs(info.device, precision) else None

    def judge(rates: frozenset[float]) -> tuple[Problem, ...]:
        return (
            *optim.problems(config, device.type, rates),
            *tensorboard.problems(config),
            *checks.sampler(config, host.samplers()),
        )

    machine = Machine(flops, outputs, launch.count(), judge)
    return make(info, host.layers(), config, scan(config.data, config.triggers), machine)


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
    with host.lease(preparation.needs(settled)) as lease:
        yield from _train_on(lease, settled, paths, identity, control, host)


def _train_on(
    lease: Lease, settled: Plan, paths: RunPaths, identity: Identity, control: Control, host: Host
) -> Iterator[Event]:
    state_file = paths.run / state.FILE
    prepared: Prepared | None = None
    position: Position | None = None
    for made in preparation.prepare(lease, settled, paths.kept):
        if isinstance(made, Prepared):
            prepared = made
        else:
            yield made
    assert prepared is not None
    for told in preparation.resume(prepared, state_file, settled.steps):
        if isinstance(told, Position):
            position = told
        else:
            yield told
    assert position is not None
    run = prepared.run(settled, _outputs(lease, settled, paths, identity, prepared, host))
    with ExitStack() as stack:
        stack.enter_context(prepared.material.latents)
        stack.enter_context(prepared.model.attachment)
        events = loop.train(run, position, control)
        stack.callback(getattr(events, "close", _nothing))  # in a `with`: what it leaves open ends before the lease
        if settled.config.save.tensorboard and run.main:
            sink = stack.enter_context(tensorboard.Sink(paths.run / "tensorboard", position.step))
            for event in events:
                sink.take(event)
                yield event
        else:
            yield from events


def _outputs(
    lease: Lease, settled: Plan, paths: RunPaths, identity: Identity, prepared: Prepared, host: Host
) -> Outputs:
    config, subject = settled.config, _subject(settled, identity)

    def write(path: Path, position: Position, rank: int | None) -> Saved:
        moment = metadata.Moment(position.step, position.epoch, position.loss_average, time.time())
        tensors = files.to_tensors(prepared.adapters, lease.info.family, DTYPES[config.save.precision], rank)
        shown = config if rank is None else replace(config, adapter=replace(config.adapter, rank=rank))
        writer.write(path, tensors, metadata.build(shown, subject, moment, path.stem))
        writer.write_beside(path, config, lease.info, _newest(paths.run / "samples"))
        host.announce(str(path))
        return Saved(str(path), "adapter", position.step, position.epoch)

    def save_adapter(position: Position, label: str) -> Iterator[Saved]:
        place = writer.Place(paths.adapters, identity.stem, identity.session)
        for rank in files.dylora_ranks(prepared.adapters) if not label else ():
            yield write(writer.path_for(place, f"rank{rank}"), position, rank)
        yield write(writer.path_for(place, label), position, None)

    def make_samples(position: Position) -> Iterator[Event]:
        return samples.make(lease, config, paths.run / "samples", position)

    def discard(path: str) -> None:
        writer.discard(Path(path), config, lease.info)

    return Outputs(paths.run / state.FILE, prepared.belongs_to, save_adapter, make_samples, discard)


def find_rate(host: Host, config: RunConfig, paths: RunPaths, control: Control) -> Iterator[Event]:
    """Search a learning rate by a short run that writes no adapter; RateFound tells it.

    Raises as `train`; ConfigError for optimizers that find their rate themselves.
    """
    if config.optimizer.name in optim.SELF_TUNED:
        raise ConfigError(
            f"optimizer.name: {config.optimizer.name} finds its learning rate itself. Choose adamw for the search."
        )
    settled = plan(host, _searching(config), paths.adapters)
    if settled.errors:
        raise ProblemsFound(settled.errors)
    with host.lease(preparation.needs(settled)) as lease:
        prepared: Prepared | None = None
        for made in preparation.prepare(lease, settled, paths.kept):
            if isinstance(made, Prepared):
                prepared = made
            else:
                yield made
        assert prepared is not None
        outputs = _outputs(lease, settled, paths, Identity(config.name, "", 0.0), prepared, host)
        with prepared.material.latents, prepared.model.attachment:
            yield Phase("searching a learning rate", 0, rate_finder.STEPS)
            yield from rate_finder.find(prepared.run(settled, outputs), control)


def _searching(config: RunConfig) -> RunConfig:
    """Return the configuration without what would bend the curve: EMA, text encoder stop, step limit."""
    training = replace(config.training, ema=0.0, text_encoder_until=1.0, max_steps=0)
    return replace(config, training=training)


def _identity(paths: RunPaths, name: str) -> Identity:
    """Return the run's identity, settled once per run folder so that a resumed run writes its own files again."""
    record = paths.run / _RESERVATION
    if record.exists():
        values: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if set(values) != {"stem", "session", "started"}:
            raise ConfigError(f"{record}: this is not a run's record. Move it away, or choose another run folder.")
        return Identity(**values)
    identity = Identity(writer.free_stem(paths.adapters, name), str(uuid.uuid4().int >> 64), time.time())
    if launch.rank() == 0:
        write_text(record, json.dumps(asdict(identity)))
    return identity


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
        placements=tuple(view.placement for view in settled.views),
        steps_total=settled.steps,
        images=whole(sum(item.repeats for item in settled.scan.items if not item.regularization)),
        regularization_images=whole(sum(item.repeats for item in settled.scan.items if item.regularization)),
    )


def _nothing() -> None:
    """Close a stream that has no end of its own."""


def _newest(folder: Path) -> Path | None:
    # Step 0 shows the model without the adapter.
    pictures = [path for path in folder.glob("step*-01.png") if path.name != "step00000000-01.png"]
    return max(pictures, default=None)
