"""Measures training at real size: seconds per step and peak memory, by precision and with gradient checkpointing.

    python benchmarks/real_size.py --checkpoint FILE --pictures DIR [--resolution 256] [--steps 5]

Prints one table row per case. Peak memory is the process's (Linux), the model included; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib_lora_trainer.app import jobs
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Progress
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.hosts.api import Host
from lib_lora_trainer.hosts.standalone import StandaloneHost

CASES = (("fp32", False), ("bf16", False), ("fp32", True))


def peak_memory() -> float:
    """Return the process's peak memory since the last reset, GB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e6


def measure(host: Host, config: RunConfig, folder: Path) -> str:
    """Train a few steps and return the table row."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    planned = jobs.plan(host, config, folder)
    began = time.perf_counter()
    job = jobs.train(host, config, jobs.RunPaths(folder / "run", folder), Control())
    ends = [time.perf_counter() for event in job if isinstance(event, Progress)]
    steps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    expected = planned.seconds / planned.steps if planned.seconds else float("nan")
    return (
        f"| {config.training.precision} | {config.training.gradient_checkpointing} | {ends[0] - began:.1f} | "
        f"{statistics.median(steps):.2f} | {expected:.2f} | {peak_memory():.2f} | {planned.estimate.memory_bytes / 1e9:.2f} |"
    )


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    sys.stdout.write("| precision | checkpointing | first step after s | s/step | planned | peak GB | planned |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- |\n")
    host = StandaloneHost(options.checkpoint, Path(tempfile.gettempdir()))
    for precision, checkpointing in CASES:
        with tempfile.TemporaryDirectory() as folder:
            config = RunConfig(
                name="benchmark",
                data=DataConfig(sources=(SourceConfig(str(options.pictures)),), resolution=options.resolution),
                adapter=AdapterConfig(rank=16, alpha=8.0),
                training=TrainingConfig(
                    epochs=100, max_steps=options.steps, precision=precision, gradient_checkpointing=checkpointing
                ),
                samples=SampleConfig(),
                save=SaveConfig(every_epochs=0, state_every_steps=0),
            )
            sys.stdout.write(measure(host, config, Path(folder)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
