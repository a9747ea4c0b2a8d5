"""Trains the bundled character with every method, optimizer and many options, and writes what came out as a table.

    python benchmarks/toy_table.py --out DIR [--only PATTERN] [--render docs/toy-world.md]

Each case is one run on the toy checkpoint (1 to 3 minutes on a CPU core) and one JSON file in DIR; a case that is there
is not run again. Judged by the toy tagger on images made from the saved file: recall (traits from the bare trigger),
control (other clothes and places obeyed) and bleed (traits without the trigger).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file

from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.files import from_tensors
from lib_lora_trainer.app import jobs
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished, Progress
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import figures, measure, regularization, world
from lib_lora_trainer.demo.build import character
from lib_lora_trainer.demo.run import CHECKPOINT, DATASET, TAGGER
from lib_lora_trainer.demo.scenery import paint_background
from lib_lora_trainer.hosts.api import Host, Lease, Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging import wd14

STEPS = 420
Rates = dict[str, float]
PLACE = "forest"  # the one background of the pictures for the masks


@dataclass(frozen=True)
class Case:
    """One run. settings: dotted setting → value, on top of the demo's recipe. pictures: which dataset."""

    group: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    pictures: str = "character"


def _adaptive(name: str, **settings: Any) -> Case:
    values = {"optimizer.name": name, "optimizer.unet_learning_rate": 1.0, "optimizer.text_learning_rate": 1.0}
    return Case("Optimizer", name, {**values, **settings})


# bitsandbytes leaves tensors below 4096 values in 32 bits, which all of the toy's are.
_REALLY_8_BIT = {"optimizer.arguments": ("min_8bit_size=1",)}


def _fixed(name: str, rate: float, **settings: Any) -> Case:
    values = {"optimizer.name": name, "optimizer.unet_learning_rate": rate, "optimizer.text_learning_rate": rate}
    return Case("Optimizer", name, {**values, **settings})


def _method(method: str, rate: float, name: str = "", **settings: Any) -> Case:
    values: dict[str, Any] = {
        "adapter.method": method,
        "optimizer.unet_learning_rate": rate,
        "optimizer.text_learning_rate": rate,
        "adapter.conv_rank": 8,
        "adapter.conv_alpha": 8.0,
    }
    values.update((key.replace("__", "."), value) for key, value in settings.items())
    return Case("Method", name or method, values)


CASES = (
    _method("lora", 1e-3),
    _method("locon", 1e-3),
    _method("loha", 1e-3),
    _method("lokr", 2e-3, adapter__lokr_factor=4),
    _method("ia3", 2e-1, adapter__layers="all", training__max_steps=864),
    _method("dylora", 2e-3, adapter__dylora_unit=4, training__max_steps=864),
    _method("oft", 6e-3, adapter__rank=4),
    _method("boft", 3e-3, adapter__rank=4),
    _method("glora", 1e-3),
    _method("full", 2.5e-4, adapter__norms=True),
    _method("locon", 1e-3, "locon, DoRA", adapter__weight_decompose=True),
    _method("lora", 5e-4, "lora, rs-LoRA", adapter__rank_stabilized=True),
    _fixed("adamw", 1e-3),
    _fixed("adamw8bit", 1e-3, **_REALLY_8_BIT),
    _fixed("lion", 4e-4),
    _fixed("lion8bit", 4e-4, **_REALLY_8_BIT),
    _fixed("adafactor", 3e-3),
    _adaptive("prodigy"),
    # At 1 it settles at 4e-3, where Adam diverges here; its authors say to lower the factor then.
    _adaptive("dadapt-adam", **{"optimizer.unet_learning_rate": 0.25, "optimizer.text_learning_rate": 0.25}),
    _adaptive("dadapt-lion"),
    _fixed("schedulefree-adamw", 3e-3, **{"optimizer.schedule": "constant"}),
    _adaptive("schedulefree-prodigy", **{"optimizer.schedule": "constant"}),
    Case("Option", "character alone", {}, "alone"),
    Case("Option", "with regularization images", {}, "regularized"),
    Case("Option", "… with prior preservation", {}, "preserved"),
    Case("Option", "blocks OUT03-06 and IN04-07", {"adapter.blocks": "IN04-07,OUT03-06"}),
    Case("Option", "… for 864 steps", {"adapter.blocks": "IN04-07,OUT03-06", "training.max_steps": 864}),
    Case("Option", "traits left in the captions", {}, "unpruned"),
    Case("Option", "one background, no masks", {}, "one place"),
    Case("Option", "one background, masked", {"loss.masked": True}, "masked"),
    Case("Option", "caption dropout 0.3", {"data.caption.dropout": 0.3}, "alone"),
    Case("Option", "min-SNR 5", {"loss.min_snr_gamma": 5.0}),
)


def config(case: Case, folders: Mapping[str, tuple[SourceConfig, ...]]) -> RunConfig:
    """Return a case's run."""
    plain = RunConfig(
        name=_file(case),
        triggers=(world.TRIGGER,),
        data=DataConfig(sources=folders[case.pictures], cache="disk", balance_regularization=False),
        save=SaveConfig(every_epochs=0, state_every_steps=0),
        samples=SampleConfig(),
    )
    made = apply(RECIPES["toy-demo"], plain)
    made = replace(made, training=replace(made.training, max_steps=STEPS, epochs=9))
    for path, value in case.settings.items():
        made = put(made, path, value)
    return made


def sources(work: Path, host: Host) -> dict[str, tuple[SourceConfig, ...]]:
    """Write the datasets that are not bundled, once, and return every dataset by its name."""
    own = SourceConfig(str(DATASET))
    made = work / "regularization"
    captions = [path.read_text(encoding="utf-8").strip() for path in sorted(DATASET.rglob("*.txt"))]
    if not (made / "done").exists():
        with host.lease(Needs()) as lease, torch.no_grad():
            for _ in regularization.make(lease, captions, 2, made / "3_regularization"):
                pass
        (made / "done").touch()
    plain = SourceConfig(str(made), repeats=3)
    if not (work / "place" / "done").exists():
        _write_variants(work)
    one, masks = str(work / "place" / "10_mikori"), str(work / "place" / "masks")
    return {
        "character": (own, plain),
        "alone": (own,),
        "regularized": (own, replace(plain, regularization=True)),
        "preserved": (own, replace(plain, regularization=True, prior_preservation=True)),
        "unpruned": (SourceConfig(str(work / "unpruned" / "10_mikori")), plain),
        "one place": (SourceConfig(one), plain),
        "masked": (SourceConfig(one, masks=masks), plain),
    }


def _write_variants(work: Path) -> None:
    place, masks, unpruned = work / "place" / "10_mikori", work / "place" / "masks", work / "unpruned" / "10_mikori"
    for folder in (place, masks, unpruned):
        folder.mkdir(parents=True, exist_ok=True)
    for index, figure in enumerate(character.character_figures()):
        seed, name = character.FIRST_PICTURE + index, f"{index:02d}"
        here = replace(figure, background=PLACE)
        picture = world.draw(here, seed)
        picture.save(place / f"{name}.png")
        text = character.caption(here).replace(f", {PLACE}", "")
        (place / f"{name}.txt").write_text(text, encoding="utf-8")
        _mask(here, seed).save(masks / f"{name}.png")
        world.draw(figure, seed).save(unpruned / f"{name}.png")
        everything = ", ".join((world.TRIGGER, *world.tags(figure)))
        (unpruned / f"{name}.txt").write_text(everything, encoding="utf-8")
    (work / "place" / "done").touch()


def _mask(figure: world.Figure, seed: int) -> Image.Image:
    """Return white where the figure is: what is the same before a black and a white background."""
    drawn = []
    for color in ((0, 0, 0), (255, 255, 255)):

        def plain(name: str, rng: Random, color: tuple[int, int, int] = color) -> Image.Image:
            size = paint_background(name, rng).size  # painted all the same, for what it draws from rng
            return Image.new("RGB", size, color)

        with mock.patch.object(figures, "paint_background", plain):
            drawn.append(world.draw(figure, seed))
    changed = ImageChops.difference(*drawn).convert("L")
    return ImageChops.invert(changed)


def ask(lease: Lease, tagger: wd14.Tagger, question: measure.Question) -> float:
    """Return the share of looked-for tags that were found."""
    with torch.no_grad():
        answers = [step for step in measure.ask(question, lease, tagger) if isinstance(step, measure.Answer)]
    return answers[-1].rate


def measured(host: Host, path: Path | None, asked: Mapping[str, measure.Question], tagger: wd14.Tagger) -> Rates:
    """Return the share that is found for each question with a saved adapter, or without any."""
    with host.lease(Needs()) as lease:
        adapters = from_tensors(load_file(str(path)), lease.targets(), lease.info.family) if path else {}
        with Attachment(lease.targets(), {layer: adapter.eval() for layer, adapter in adapters.items()}):
            return {name: ask(lease, tagger, question) for name, question in asked.items()}


def questions(case: Case) -> Mapping[str, measure.Question]:
    """Return what a case is asked."""
    asked = {"recall": measure.recall(), "control": measure.control(), "bleed": measure.bleed()}
    if case.pictures in ("one place", "masked"):
        asked["place"] = measure.Question("place", (world.TRIGGER,) * 24, ((PLACE,),) * 24)
    return asked


def run(case: Case, host: StandaloneHost, work: Path, tagger: wd14.Tagger) -> dict[str, Any]:
    """Train a case and return its figures."""
    settings = config(case, sources(work, host))
    began, losses = time.monotonic(), []
    folder = work / "runs" / settings.name
    for event in jobs.train(host, settings, jobs.RunPaths(folder, folder, work / "cache"), Control()):
        if isinstance(event, Progress):
            losses.append(event.loss)
    assert isinstance(event, Finished)
    path, seconds = Path(event.files[-1]), time.monotonic() - began
    rates = measured(host, path, questions(case), tagger)
    return {
        "group": case.group,
        "name": case.name,
        "settings": dict(case.settings),
        "rates": rates,
        "steps": len(losses),
        "loss": sum(losses[-100:]) / len(losses[-100:]),
        "megabytes": path.stat().st_size / 1e6,
        "seconds": seconds,
    }


def rows(work: Path) -> list[dict[str, Any]]:
    """Return the results there are, in the order of the cases."""
    found = (work / f"{_file(case)}.json" for case in CASES)
    return [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]


def _file(case: Case) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{case.group}-{case.name}".lower()).strip("-")


def table(work: Path) -> str:
    """Return the results as Markdown."""
    lines = []
    for group in dict.fromkeys(case.group for case in CASES):
        extra = group == "Option"
        columns = "| case | recall | control | bleed |" + (" place |" if extra else "") + " loss | MB | s |"
        lines += ["", f"## {group}s", "", columns]
        lines.append("|---|---|---|---|" + ("---|" if extra else "") + "---|---|---|")
        for row in (row for row in rows(work) if row["group"] == group):
            rates = row["rates"]
            place = (f" {rates['place']:.0%} |" if "place" in rates else " |") if extra else ""
            lines.append(
                f"| {row['name']} | {rates['recall']:.0%} | {rates['control']:.0%} | {rates['bleed']:.0%} |{place} "
                f"{row['loss']:.4f} | {row['megabytes']:.1f} | {row['seconds']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run the cases that are missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="a pattern for group and name")
    parser.add_argument("--render", type=Path)
    options = parser.parse_args()
    if options.render:
        head = options.render.read_text(encoding="utf-8").partition("\n## Methods")[0].rstrip()
        options.render.write_text(f"{head}\n{table(options.out)}\n", encoding="utf-8")
        return
    torch.set_num_threads(1)  # so small a model is slower with several
    options.out.mkdir(parents=True, exist_ok=True)
    host, tagger = StandaloneHost(CHECKPOINT, options.out), wd14.load(TAGGER)
    for case in CASES:
        target = options.out / f"{_file(case)}.json"
        if target.exists() or not re.search(options.only, f"{case.group} {case.name}", re.IGNORECASE):
            continue
        result = run(case, host, options.out, tagger)
        target.write_text(json.dumps(result), encoding="utf-8")
        sys.stderr.write(f"{case.name}: {result['rates']} loss {result['loss']:.4f} {result['seconds']:.0f} s\n")


if __name__ == "__main__":
    main()
