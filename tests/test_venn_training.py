"""What the Venn check predicts, a trained adapter does: triggers of the same pictures draw the same, others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.files import from_tensors
from lib_lora_trainer.app import jobs, prune_jobs
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.measure import request
from lib_lora_trainer.demo.run import CHECKPOINT, TAGGER
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging import wd14

WORDS = ("vkraqu", "zbnolt", "qwimde")
"""The first two stand together in the pictures of the bundled character, the third alone in those of somebody else."""
OTHER = ("1boy", "pink hair", "hat", "red eyes")
STEPS = 240


def dataset(root: Path) -> DataConfig:
    """Draw both, and write captions without any trait."""
    draw = Random(5)
    person, hair, accessory, eyes = OTHER
    other = replace(world.sample_figure(draw), person=person, hair_color=hair, accessory=accessory, eyes=eyes)
    for folder, words in (("10_both", WORDS[:2]), ("10_other", WORDS[2:])):
        (root / folder).mkdir(parents=True)
        for number in range(12):
            plain = world.sample_character(draw)
            shown = plain if len(words) == 2 else replace(other, pose=plain.pose, background=plain.background)
            path = root / folder / f"{number}.png"
            world.draw(shown, 70_000 + number).save(path)
            path.with_suffix(".txt").write_text(", ".join((*words, shown.pose, shown.background)), "utf-8")
    return DataConfig(sources=(SourceConfig(str(root)),))


@pytest.mark.slow
def test_the_adapter_confirms_the_check(tmp_path):
    pytest.importorskip("diffusers")  # of which the standalone host makes its networks
    data = dataset(tmp_path / "data")
    venn = prune_jobs.check(prune_jobs.read(Request(data)), WORDS)
    assert [pair.relation for pair in venn.pairs] == ["same", "apart", "apart"]
    assert [problem.severity for problem in venn.findings] == ["error"]

    plain = RunConfig(
        name="venn", triggers=WORDS, data=data, save=SaveConfig(every_epochs=0, state_every_steps=0),
        samples=SampleConfig(prompts=()),
    )  # fmt: skip
    config = apply(RECIPES["toy-demo"], plain)
    config = replace(config, training=replace(config.training, max_steps=STEPS))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        host = StandaloneHost(CHECKPOINT, tmp_path, device="cpu")
        *_, last = jobs.train(host, config, jobs.RunPaths(tmp_path / "run", tmp_path), Control())
        assert isinstance(last, Finished) and last.reason == "done"
        tagger = wd14.load(TAGGER)
        columns = [4 + world.TAGGER_TAGS.index(tag) for tag in (*world.CHARACTER_TRAITS, *OTHER)]
        means = {}
        with host.lease(Needs()) as lease:
            adapters = from_tensors(load_file(last.files[-1]), lease.targets(), lease.info.family)
            with Attachment(lease.targets(), {layer: adapter.eval() for layer, adapter in adapters.items()}):
                for word in WORDS:
                    requests = [request(word, 500 + number) for number in range(12)]
                    images = [made.image for made in lease.generate(requests)]
                    means[word] = wd14.probabilities(tagger, images).mean(0)[columns]
    finally:
        torch.set_num_threads(threads)
    first, second, other = (means[word] for word in WORDS)
    # Each alone draws the looks of the pictures it stood in, and only these.
    looks, others = len(world.CHARACTER_TRAITS), slice(len(world.CHARACTER_TRAITS), None)
    assert min(first[:looks].mean(), second[:looks].mean()) >= 0.25 > 0.1 >= other[:looks].mean()
    assert other[others].mean() >= 0.5 > 0.35 >= max(first[others].mean(), second[others].mean())
    apart = min(np.linalg.norm(first - other), np.linalg.norm(second - other))
    assert np.linalg.norm(first - second) <= apart / 2
