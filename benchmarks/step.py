"""Measures the training loop against the bare UNet, and the command line against a checkout of sd-scripts.

    python benchmarks/step.py --make FILE
    python benchmarks/step.py --checkpoint FILE --pictures DIR [--resolution 256] [--steps 6]
    python benchmarks/step.py --checkpoint FILE --pictures DIR --sd-scripts DIR --sd-python PYTHON

`--make` writes a randomly initialized full-size SD1.5 checkpoint. The first measurement is a ratio within one process:
steps of the loop (LoRA rank 16; on the UNet alone with cached texts) over forward and backward passes of the same frozen
UNet to its inputs, by turns. The second runs both programs with the same settings for two lengths; the difference of
their times is what the steps between them cost, the rest is start-up. Peak memory is the process's own (Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from lib_lora_trainer.app import jobs
from lib_lora_trainer.base import codec
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Progress
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.hosts.api import Lease, Needs, TextRequest
from lib_lora_trainer.hosts.standalone import StandaloneHost

ROOT = Path(__file__).resolve().parent.parent
SHORT, LONG = 3, 11


class Pair(NamedTuple):
    """Seconds of a step of the loop, and of a bare pass."""

    loop: float
    bare: float


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def settings(options: argparse.Namespace, steps: int, text_encoder: bool) -> RunConfig:
    """Return the run that is measured."""
    return RunConfig(
        name="benchmark",
        data=DataConfig(
            sources=(SourceConfig(str(options.pictures.resolve()), repeats=100),),
            resolution=options.resolution,
            cache_text="none" if text_encoder else "memory",
            caption=CaptionConfig(shuffle=text_encoder),
        ),
        adapter=AdapterConfig(rank=16, alpha=8.0, text_encoder=text_encoder),
        training=TrainingConfig(epochs=1, max_steps=steps, precision=options.precision),
        samples=SampleConfig(),
        save=SaveConfig(every_epochs=0, state_every_steps=0),
    )


def peak() -> float:
    """Return the process's peak memory since the last reset, GB; on CUDA the device's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e6


def reset_peak() -> None:
    """Forget the peak so far."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def timed(action: Callable[[], None]) -> float:
    """Return how long an action takes, the device's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


class Watched:
    """A host whose lease can be seen from outside of the training loop."""

    def __init__(self, host: StandaloneHost) -> None:
        self.host = host
        self.open: Lease | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def lease(self, needs: Needs) -> Lease:
        """Return the host's lease and remember it."""
        self.open = self.host.lease(needs)
        return self.open


@contextmanager
def without_adapters(lease: Lease) -> Iterator[None]:
    """Leave out inside the block what adapters do to the model's layers, with all of its cost."""
    held = [(target.module, target.module.__dict__.pop("forward", None)) for target in lease.targets()]
    try:
        yield
    finally:
        for module, forward in held:
            if forward is not None:
                module.__dict__["forward"] = forward


def bare(lease: Lease, options: argparse.Namespace) -> Callable[[], None]:
    """Return a forward and backward pass of the frozen UNet to its inputs."""
    side = options.resolution // 8
    with torch.no_grad():
        text = lease.encode_text(TextRequest(("a photograph",), 1, 1, ()))
    latents = torch.randn(1, 4, side, side, device=lease.device, requires_grad=True)
    step = torch.tensor([500], device=lease.device)

    def once() -> None:
        lease.predict(latents, step, text).square().mean().backward()

    return once


def pairs(host: StandaloneHost, options: argparse.Namespace, text_encoder: bool) -> tuple[list[Pair], float, float]:
    """Return the seconds of each step of the loop beside a bare pass right after it, and the peak of both, GB."""
    watched, found, peaks = Watched(host), [], [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        config = settings(options, options.steps + 2, text_encoder)
        job = jobs.train(watched, config, jobs.RunPaths(Path(folder) / "run", Path(folder)), Control())
        began = 0.0
        for event in job:
            if not isinstance(event, Progress):
                continue
            ended = time.perf_counter()
            lease = watched.open
            assert lease is not None
            if began:
                peaks[1] = max(peaks[1], peak())
            with without_adapters(lease):
                once = bare(lease, options)
                reset_peak()
                alone = timed(once)
                peaks[0] = max(peaks[0], peak())
            if began:
                found.append(Pair(ended - began, alone))
            reset_peak()
            began = time.perf_counter()
    return found, peaks[0], peaks[1]


def within(options: argparse.Namespace) -> None:
    """Compare the loop with the bare UNet, step by step in turns, so that a busy machine disturbs both alike."""
    say("| what | s/step | fastest | over the bare UNet | fastest over fastest | peak GB |")
    say("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        host = StandaloneHost(options.checkpoint, Path(folder))
        for text_encoder, name in ((False, "loop, UNet"), (True, "loop, UNet and text encoder")):
            found, least, most = pairs(host, options, text_encoder)
            loops, alone = (list(values) for values in zip(*found, strict=True))
            ratio, best = statistics.median(pair.loop / pair.bare for pair in found), min(loops) / min(alone)
            middle = statistics.median(alone)
            say(f"| frozen UNet, forward and backward | {middle:.2f} | {min(alone):.2f} | 1.00 | 1.00 | {least:.2f} |")
            say(f"| {name} | {statistics.median(loops):.2f} | {min(loops):.2f} | {ratio:.2f} | {best:.2f} | {most:.2f} |")
    say(f"{options.steps} pairs each; medians, the ratio of the ratios of pairs")


def command(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Run a program and return its seconds and its peak memory, GB. Raises RuntimeError with its last words."""
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(arguments, cwd=folder, stdout=stream, stderr=stream, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-3000:])
    return time.perf_counter() - began, usage.ru_maxrss / 1e6


def ours(options: argparse.Namespace, steps: int, folder: Path) -> tuple[float, float]:
    """Run our command line."""
    file = folder / "run.toml"
    file.write_text(codec.to_toml(settings(options, steps, True)), encoding="utf-8")
    arguments = [sys.executable, "-m", "lib_lora_trainer", "train", str(file), "--checkpoint", str(options.checkpoint)]
    return command([*arguments, "--out", str(folder / "out")], folder, {**os.environ, "PYTHONPATH": str(ROOT)})


def theirs(options: argparse.Namespace, steps: int, folder: Path) -> tuple[float, float]:
    """Run sd-scripts with the same settings."""
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "100_picture").symlink_to(options.pictures.resolve())
    values = {
        "pretrained_model_name_or_path": options.checkpoint,
        "train_data_dir": pictures,
        "output_dir": folder / "out",
        "network_module": "networks.lora",
        "network_dim": 16,
        "network_alpha": 8,
        "resolution": options.resolution,
        "train_batch_size": 1,
        "max_train_steps": steps,
        "learning_rate": 1e-4,
        "optimizer_type": "AdamW",
        "mixed_precision": {"fp32": "no"}.get(options.precision, options.precision),
        "caption_extension": ".txt",
        "max_data_loader_n_workers": 0,
        "max_token_length": 225,
        "save_model_as": "safetensors",
    }
    if options.sd_tokenizers:
        values["tokenizer_cache_dir"] = options.sd_tokenizers.resolve()
    flags = ("enable_bucket", "cache_latents", "sdpa", "shuffle_caption")
    script = options.sd_scripts.resolve() / "train_network.py"
    arguments = [str(options.sd_python), str(script), *(f"--{name}={value}" for name, value in values.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(options.sd_scripts.resolve()), *options.sd_path])}
    return command([*arguments, *(f"--{flag}" for flag in flags)], folder, environment)


def beside(options: argparse.Namespace) -> None:
    """Compare both programs at two lengths."""
    say("| program | s/step | start-up s | peak GB |")
    say("| --- | --- | --- | --- |")
    found: dict[str, list[tuple[float, float, float]]] = {"lora trainer": [], "sd-scripts": []}
    for _ in range(options.rounds):
        for name, program in (("lora trainer", ours), ("sd-scripts", theirs)):
            results = []
            for steps in (SHORT, LONG):
                with tempfile.TemporaryDirectory() as folder:
                    results.append(program(options, steps, Path(folder)))
            step = (results[1][0] - results[0][0]) / (LONG - SHORT)
            found[name].append((step, results[0][0] - SHORT * step, max(memory for _, memory in results)))
    for name, each in found.items():
        step, start, memory = (statistics.median(values) for values in zip(*each, strict=True))
        say(f"| {name} | {step:.2f} | {start:.1f} | {memory:.2f} |")


def make(path: Path) -> None:
    """Write the random checkpoint, about 4 GB."""
    from safetensors.torch import save_file

    import small_models

    generator = torch.Generator().manual_seed(1)
    shapes = small_models.all_shapes("sd1", small_models.PUBLISHED["sd1"])
    save_file({name: small_models.random_tensor(name, shape, generator) for name, shape in shapes.items()}, str(path))


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", type=Path, metavar="FILE")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sd-scripts", type=Path, help="a checkout of sd-scripts")
    parser.add_argument("--sd-python", type=Path, help="the Python that has its requirements")
    parser.add_argument("--sd-path", nargs="*", default=[], help="folders for its PYTHONPATH")
    parser.add_argument("--sd-tokenizers", type=Path, help="its --tokenizer_cache_dir, where no hub can be reached")
    options = parser.parse_args()
    if options.make:
        make(options.make)
    elif options.sd_scripts:
        beside(options)
    else:
        within(options)


if __name__ == "__main__":
    main()
