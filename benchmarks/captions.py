"""Measures bulk edits of captions through the journal, and what the editor asks while somebody types.

    python benchmarks/captions.py [--captions 5000] [--tags 30] [--rounds 3]

Makes a folder of small pictures with caption files, and times: loading; an edit of every caption, as a draft, applied
and taken back; filters; the frequency table; the clean-up's proposals; completion among 100,000 tags. The fastest of
the rounds counts, since the machine may be shared.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image

from lib_lora_trainer.app import caption_jobs, dataset_tools
from lib_lora_trainer.app.caption_jobs import Selection
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.captions.cleaning.values import CleanOptions
from lib_lora_trainer.captions.edits_options import AddOptions, RemoveOptions
from lib_lora_trainer.captions.vocabulary import Vocabulary
from lib_lora_trainer.config.data import DataConfig, SourceConfig


def main() -> None:
    """Make the folder, run every round, and write a table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=5000)
    parser.add_argument("--tags", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, options.captions, options.tags)
        words = [f"{a} thing {n}" for n in range(20_000) for a in ("red", "blue", "long", "small", "odd")]
        vocabulary = clock.time("vocabulary of 100,000 tags", lambda: Vocabulary({}, words))
        for _ in range(options.rounds):
            measure(root, clock)
            clock.time("complete", lambda: vocabulary.complete("thing 1999"))
    sys.stdout.write("| what | seconds |\n| --- | --- |\n")
    sys.stdout.writelines(f"| {name} | {seconds:.3f} |\n" for name, seconds in clock.best.items())


class Clock:
    """The fastest time of each piece of work."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work, remember how long it took, and return its result."""
        started = time.perf_counter()
        result = work()
        self.best[name] = min(time.perf_counter() - started, self.best.get(name, float("inf")))
        return result


def measure(root: Path, clock: Clock) -> None:
    """Do everything once."""
    data = DataConfig(sources=(SourceConfig(str(root)),))
    loaded = clock.time("load", lambda: caption_jobs.load(data))
    clock.time("parse all captions", lambda: loaded.parsed)
    clock.time("filter", lambda: caption_jobs.selected(loaded, Selection(query="*_tag1 OR /7$/ -count>99")))
    clock.time("frequency table", loaded.table)
    clock.time("clean-up proposals", lambda: caption_jobs.clean(CleanOptions(), loaded))
    clock.time("draft: remove by pattern", lambda: caption_jobs.draft(RemoveOptions("*7", "wildcard"), loaded))
    made = clock.time("draft: trigger first", lambda: caption_jobs.draft(AddOptions("mona"), loaded))
    clock.time("apply", lambda: list(dataset_tools.apply(made, Control())))
    clock.time("undo", lambda: list(dataset_tools.undo(root)))


def make(root: Path, captions: int, tags: int) -> None:
    """Make pictures with captions of tags drawn from 2,000."""
    draws = random.Random(1)
    Image.new("RGB", (8, 8)).save(root / "first.png")
    content = (root / "first.png").read_bytes()
    (root / "first.png").unlink()
    for number in range(captions):
        place = root / f"10_part{number % 5}"
        place.mkdir(exist_ok=True)
        (place / f"{number:05d}.png").write_bytes(content)
        words = [f"some tag{draws.randrange(2000)}" for _ in range(tags)]
        (place / f"{number:05d}.txt").write_text(", ".join(words), encoding="utf-8")


if __name__ == "__main__":
    main()
