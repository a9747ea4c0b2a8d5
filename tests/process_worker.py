"""One of several training processes: `python process_worker.py RUN.toml OUT`, with the launcher's variables set."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from lib_lora_trainer.app.jobs import RunPaths, train
from lib_lora_trainer.base import launch
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Progress
from lib_lora_trainer.config import run
from lib_lora_trainer.train.processes import joined
from tiny_host import TinyHost

TASKS = Path("/proc/self/task")


def main(config: Path, out: Path, stop_after: int) -> None:
    torch.set_num_threads(1)
    control = Control()
    with joined():
        for event in train(TinyHost(out), run.read(config), RunPaths(out / "run", out, out / "cache"), control):
            if isinstance(event, Progress) and launch.rank() == 0:
                sys.stdout.write(f"{event.step} {event.loss!r}\n")
                if event.step == stop_after:
                    control.ask("pause")
    # A thread of the group that is alive when Python ends can abort the process, after all work is done.
    left = [name for name in (task.read_text(encoding="utf-8") for task in TASKS.glob("*/comm")) if "gloo" in name]
    if left:
        raise SystemExit(f"threads of the closed group are alive: {left}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
