"""Trains the bundled character with pruned captions, with all tags and with none, and writes what came out as a table.

    python benchmarks/toy_captions.py --out DIR [--seeds 1 2 3] [--render docs/toy-world.md]

The same pictures, steps and seeds each time; only the captions differ. All start from every tag of every picture:
*pruned* is what the app's own trigger pruning makes of it (a static character, with the scarf chosen by hand, since
clothes stay otherwise), *unpruned* has the trigger before all tags, *untagged* the trigger alone. One run takes about
two minutes on a CPU core and leaves one JSON file in DIR; a run that is there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from toy_table import measured

from lib_lora_trainer.app import dataset_tools, jobs, prune_jobs
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.captions.prune_values import Trained, Trigger
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import measure, world
from lib_lora_trainer.demo.build import character
from lib_lora_trainer.demo.run import CHECKPOINT, TAGGER
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging import wd14

STEPS = 300
WAYS = ("pruned", "unpruned", "untagged")
SCARF = "striped scarf"  # a garment, which pruning leaves alone unless the user says that it belongs to the character
COLUMNS = {
    "recall": "recall",
    "scenes": "… in scenes",
    "named": "… all named",
    "control": "control",
    "bleed": "bleed",
}


def named(count: int = 24) -> measure.Question:
    """Ask for the trigger and every trait by its tag; look for the traits."""
    prompt = ", ".join((world.TRIGGER, "1girl", *world.CHARACTER_TRAITS))
    return measure.Question("named", (prompt,) * count, (world.CHARACTER_TRAITS,) * count)


def scenes(count: int = 24) -> measure.Question:
    """Ask for the trigger in other clothes and places, as `measure.control` does; look for the traits."""
    prompts = measure.control(count).prompts
    return measure.Question("scenes", prompts, (world.CHARACTER_TRAITS,) * count)


def questions() -> Mapping[str, measure.Question]:
    """Return what each adapter is asked."""
    return {
        "recall": measure.recall(),
        "scenes": scenes(),
        "named": named(),
        "control": measure.control(),
        "bleed": measure.bleed(),
    }


def dataset(root: Path, way: str) -> DataConfig:
    """Write the pictures with captions of one way, once."""
    folder = root / way / f"10_{world.TRIGGER}"
    data = DataConfig(sources=(SourceConfig(str(folder.parent)),))
    if folder.exists():
        return data
    folder.mkdir(parents=True)
    for index, figure in enumerate(character.character_figures()):
        path = folder / f"{index:02d}.png"
        world.draw(figure, character.FIRST_PICTURE + index).save(path)
        if way != "untagged":
            path.with_suffix(".txt").write_text(", ".join(world.tags(figure)), encoding="utf-8")
    *_, done = dataset_tools.apply(_draft(data, folder.name, way), Control())
    assert isinstance(done, Finished) and done.reason == "done"
    return data


def _draft(data: DataConfig, folder: str, way: str) -> Draft:
    if way != "pruned":
        return prune_jobs.draft_triggers(prune_jobs.read(Request(data)), {folder: (world.TRIGGER,)})
    trained = Trained((Trigger(world.TRIGGER, "character", (SCARF,)),), "static")
    *_, made = prune_jobs.propose(prune_jobs.PruneRequest(Request(data), {folder: trained}), Control())
    assert isinstance(made, prune_jobs.Proposed)
    (plan,) = made.plans
    assert plan.leaving == frozenset(world.CHARACTER_TRAITS), plan.leaving
    return prune_jobs.draft_prune(made)


def config(way: str, seed: int, data: DataConfig) -> RunConfig:
    """Return a run: the demo's recipe on the character alone, without regularization images."""
    plain = RunConfig(
        name=f"{way}-{seed}",
        triggers=(world.TRIGGER,),
        data=replace(data, cache="disk"),
        save=SaveConfig(every_epochs=0, state_every_steps=0),
        samples=SampleConfig(),
    )
    made = apply(RECIPES["toy-demo"], plain)
    # The trigger stays first while the other tags are shuffled, as the pruning's own settings say.
    caption = replace(made.data.caption, shuffle=True, keep_tokens=1)
    return replace(
        made,
        data=replace(made.data, caption=caption),
        training=replace(made.training, max_steps=STEPS, epochs=50, seed=seed),
    )


def run(way: str, seed: int, host: StandaloneHost, work: Path) -> Path:
    """Train with the captions of one way, once, and return the saved file."""
    settings = config(way, seed, dataset(work / "data", way))
    folder = work / "runs" / settings.name
    done = folder / f"{settings.name}.safetensors"
    if not done.exists():
        *_, finished = jobs.train(host, settings, jobs.RunPaths(folder, folder, work / "cache"), Control())
        assert isinstance(finished, Finished) and finished.reason == "done"
        assert Path(finished.files[-1]) == done
    return done


def ask(target: Path, path: Path | None, host: StandaloneHost, tagger: wd14.Tagger) -> None:
    """Ask a saved file, or the checkpoint alone, what it was not asked yet; keep the shares in a JSON file."""
    known = json.loads(target.read_text(encoding="utf-8"))["rates"] if target.exists() else {}
    missing = {name: question for name, question in questions().items() if name not in known}
    if missing:
        rates = {**known, **measured(host, path, missing, tagger)}
        target.write_text(json.dumps({"rates": rates}), encoding="utf-8")
        sys.stderr.write(f"{target.stem}: {rates}\n")


def table(work: Path, seeds: Sequence[int]) -> str:
    """Return the results as Markdown: for each way the mean over the seeds, and the rate of each seed."""
    lines = ["| captions | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    base = json.loads((work / "base.json").read_text(encoding="utf-8"))["rates"]
    lines.append("| (no adapter) | " + " | ".join(f"{base[name]:.0%}" for name in COLUMNS) + " |")
    for way in WAYS:
        files = [work / f"{way}-{seed}.json" for seed in seeds]
        found = [json.loads(path.read_text(encoding="utf-8"))["rates"] for path in files]
        cells = []
        for name in COLUMNS:
            values = [rates[name] for rates in found]
            each = ", ".join(f"{100 * value:.0f}" for value in values)
            cells.append(f"**{statistics.mean(values):.0%}** ({each})")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render(path: Path, made: str) -> None:
    """Write the table in the place of the one under the heading Captions. Raises ValueError where there is none."""
    before, heading, rest = path.read_text(encoding="utf-8").partition("## Captions\n")
    lines = rest.split("\n")
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    if not heading or not rows:
        raise ValueError(f"{path}: has no table under the heading Captions.")
    last = next(number for number in range(rows[0], len(lines) + 1) if number not in rows)
    text = "\n".join((*lines[: rows[0]], made, *lines[last:]))
    path.write_text(before + heading + text, encoding="utf-8")


def main() -> None:
    """Run what is missing, then print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--render", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # so small a model is slower with several
    options.out.mkdir(parents=True, exist_ok=True)
    host, tagger = StandaloneHost(CHECKPOINT, options.out), wd14.load(TAGGER)
    ask(options.out / "base.json", None, host, tagger)
    for seed in options.seeds:
        for way in WAYS:
            ask(options.out / f"{way}-{seed}.json", run(way, seed, host, options.out), host, tagger)
    made = table(options.out, options.seeds)
    if options.render:
        render(options.render, made)
    else:
        sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()
