"""Trains the bundled character too short, right and too long over several seeds, and looks whether the picker says so.

    python benchmarks/picker.py --out DIR [--seeds 1 2 3 4 5 6 7 8 9 10]

One training per seed, with the demo's regularization images; the learning rate is constant, so that the saves after
1, 6 and 20 epochs are what trainings of these lengths leave, and so high that the last one has lost what the model
knew. The picker is asked after each of the three lengths, from the files that exist by then. `--truth` also measures
each save without the picker, by the toy world's own questions: 24 images each, other prompts, seeds and more sampling
steps. Prints a table; one seed takes about five minutes on a CPU core. What is trained and measured stays in DIR, and is
not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from toy_table import measured

from lib_lora_trainer.app import jobs, pick_dataset, pick_jobs
from lib_lora_trainer.app.pick_jobs import Picked, PickRequest
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import measure, regularization
from lib_lora_trainer.demo import run as demo_run
from lib_lora_trainer.evaluate.pick_options import PickOptions
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging import wd14
from lib_lora_trainer.tagging.models import Found, in_folder

EPOCHS = (1, 6, 20)
"""Too short, right and too long, of 36 steps each: the character's 24 pictures four times, and 48 regularization images."""
RATE = 3e-3
"""The learning rate of both networks, three times the demo's."""
SAID = ("too-short", "right", "too-long")
OPTIONS = PickOptions(weights=(1.0,), images=16, steps=12, guidance=5.0, side=128)


def config(images: Path, seed: int) -> RunConfig:
    """Return the training of one seed, with a save after each epoch. images: for regularization."""
    usual = demo_run.config(images)
    sources = SourceConfig(str(demo_run.DATASET), repeats=4), SourceConfig(str(images), repeats=1)
    return replace(
        usual,
        data=replace(usual.data, sources=sources),
        optimizer=replace(usual.optimizer, unet_learning_rate=RATE, text_learning_rate=RATE, schedule="constant"),
        training=replace(usual.training, epochs=EPOCHS[-1], seed=seed),
        save=replace(usual.save, every_epochs=1, state_every_steps=0),
        samples=replace(usual.samples, every_epochs=0),
    )


def regularized(host: StandaloneHost, folder: Path) -> Path:
    """Return the folder of the regularization images, which are made once."""
    captions = [path.read_text(encoding="utf-8").strip() for path in sorted(demo_run.DATASET.rglob("*.txt"))]
    if len(list(folder.glob("*.txt"))) < demo_run.ROUNDS * len(captions):
        with host.lease(Needs()) as lease:
            list(regularization.make(lease, captions, demo_run.ROUNDS, folder))
    return folder


def trained(host: StandaloneHost, images: Path, folder: Path, seed: int) -> tuple[Path, ...]:
    """Train, once, and return the saves after `EPOCHS`. images: for regularization."""
    settings = config(images, seed)
    paths = tuple(
        folder / f"{settings.name}{f'-{epoch:06d}' if epoch < EPOCHS[-1] else ''}.safetensors" for epoch in EPOCHS
    )
    if not all(path.exists() for path in paths):
        *_, last = jobs.train(host, settings, jobs.RunPaths(folder / "x.run", folder), Control())
        assert isinstance(last, Finished) and last.reason == "done" and all(path.exists() for path in paths)
    return paths


def picked(host: StandaloneHost, files: Sequence[Path], tagger: Found, folder: Path) -> dict[str, Any]:
    """Ask the picker about some files; images are made once, those of the base model once for all seeds."""
    asked = PickRequest(tuple(files), pick_dataset.config_of(files), tagger, folder, options=OPTIONS)
    *_, found = pick_jobs.pick(host, asked, Control())
    assert isinstance(found, Picked)
    choice = found.verdict.choice
    return {
        "length": found.verdict.length,
        "epoch": choice.cell.epoch if choice else None,
        "findings": [finding.kind for finding in found.verdict.findings],
        "cells": [
            {kind: list(getattr(cell, kind)) for kind in ("recall", "control", "bleed")} for cell in found.trial.cells
        ],
    }


def truth(host: StandaloneHost, files: Sequence[Path], kept: Path, tagger: wd14.Tagger) -> list[dict[str, float]]:
    """Return what each save does, by the toy world's own questions; asked once, and kept."""
    if not kept.exists():
        asked = {"recall": measure.recall(), "control": measure.control(), "bleed": measure.bleed()}
        kept.write_text(json.dumps([measured(host, path, asked, tagger) for path in files]), encoding="utf-8")
    found: list[dict[str, float]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def success(result: Mapping[str, Any]) -> bool:
    """Tell whether all three lengths were called by their names, and of all saves the middle one was chosen."""
    said = tuple(each["length"] for each in result["picked"])
    return said == SAID and result["picked"][-1]["epoch"] == EPOCHS[1]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as Markdown: recall / control / bleed in percent, by the picker's images and, below, the truth."""
    heads = [f"{epoch} epoch{'s' * (epoch > 1)}" for epoch in EPOCHS]
    lines = [f"| seed | {' | '.join(heads)} | said | chosen | |", "|" + "---|" * (len(EPOCHS) + 4)]
    for result in results:
        seen = [
            {kind: sum(values) / len(values) for kind, values in cell.items()} for cell in result["picked"][-1]["cells"]
        ]
        said = ", ".join(each["length"].replace("-", " ") for each in result["picked"])
        chosen, verdict = result["picked"][-1]["epoch"], "yes" if success(result) else "**no**"
        lines.append(f"| {result['seed']} | {_shares(seen)} | {said} | {chosen} | {verdict} |")
    lines += [
        f"| {result['seed']}, truth | {_shares(result['truth'])} | | | |" for result in results if "truth" in result
    ]
    lines += ["", f"{sum(map(success, results))} of {len(results)}."]
    return "\n".join(lines)


def _shares(saves: Sequence[Mapping[str, float]]) -> str:
    return " | ".join(
        " / ".join(f"{100 * rates[name]:.0f}" for name in ("recall", "control", "bleed")) for rates in saves
    )


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=tuple(range(1, 11)))
    parser.add_argument("--truth", action="store_true", help="measure each save without the picker, too")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so small a model is slower with several
    options.out.mkdir(parents=True, exist_ok=True)
    host = StandaloneHost(demo_run.CHECKPOINT, options.out, device="cpu")
    found, tagger = in_folder(demo_run.TAGGER), wd14.load(demo_run.TAGGER)
    assert found is not None
    images = regularized(host, options.out / "regularization")
    results: list[dict[str, Any]] = []
    saves = {}
    for seed in options.seeds:
        saves[seed] = files = trained(host, images, options.out / f"seed-{seed}", seed)
        said = [picked(host, files[:count], found, options.out / "pick") for count in range(1, len(files) + 1)]
        results.append({"seed": seed, "picked": said})
        sys.stderr.write(f"seed {seed}: {[(each['length'], each['epoch']) for each in said]}\n")
    for result in results if options.truth else ():
        seed = result["seed"]
        result["truth"] = truth(host, saves[seed], options.out / f"truth-{seed}.json", tagger)
    sys.stdout.write(f"{table(results)}\n")


if __name__ == "__main__":
    main()
