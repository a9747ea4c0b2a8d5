"""The toy world's character trained: few of its blocks keep what it learned, and the file baked of them confirms it."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")  # of which the standalone host makes its networks

from lib_lora_trainer.app import baking, block_jobs, jobs, pick_dataset
from lib_lora_trainer.app.block_bench import Bench, Counted
from lib_lora_trainer.app.block_jobs import Analysed, BlocksRequest, Draft
from lib_lora_trainer.app.grid_attached import AttachedStudio
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.demo import run as demo_run
from lib_lora_trainer.evaluate import blocks as measured
from lib_lora_trainer.evaluate.blocks_options import BlockOptions
from lib_lora_trainer.evaluate.grid_axes import Worn
from lib_lora_trainer.evaluate.pick_store import Store
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging import wd14
from lib_lora_trainer.tagging.models import in_folder

pytestmark = pytest.mark.slow

OPTIONS = BlockOptions(count=2, seeds=4, keep=0.9, steps=12, guidance=5.0, side=128)


def trained(host: StandaloneHost, folder: Path) -> Path:
    usual = demo_run.config(folder)
    config = replace(
        usual,
        data=replace(usual.data, sources=(SourceConfig(str(demo_run.DATASET), repeats=4),)),
        optimizer=replace(usual.optimizer, unet_learning_rate=2e-3, text_learning_rate=2e-3, schedule="constant"),
        training=replace(usual.training, epochs=4),
        save=replace(usual.save, every_epochs=0, state_every_steps=0),
        samples=replace(usual.samples, every_epochs=0),
    )
    *_, last = jobs.train(host, config, jobs.RunPaths(folder / "x.run", folder), Control())
    assert isinstance(last, Finished) and last.reason == "done"
    return Path(last.files[-1])


def mean(values) -> float:
    return sum(values) / len(values)


def recall_of(baked: Path, blocks: set[str], asked: BlocksRequest, studio: AttachedStudio) -> float:
    """Return what the file shows at the prompts and seeds of the analysis, with no block weights."""
    *_, made = block_jobs.draft(studio, asked, Control())
    assert isinstance(made, Draft) and set(made.inside.names) == blocks
    store = Store(asked.folder, "tagger")
    bench = Bench(studio, made.file, made.inside, asked.options, store, Control())
    shots = made.shots.recall
    with wd14.opened(asked.tagger, "cpu") as tagger, bench.at_work(tagger):
        seen = result(bench.measured(frozenset(blocks), shots, Counted("baked", len(shots))))
    assert bench.scene(made.inside.names, shots[0]).adapter == Worn(str(baked))
    return mean(measured.recall(shots, seen, made.surveyed.looking))


def result(events: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def test_half_of_the_blocks_keep_the_recall_and_the_baked_file_confirms_it(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is slower with several
    try:
        host = StandaloneHost(demo_run.CHECKPOINT, tmp_path, device="cpu")
        file = trained(host, tmp_path)
        studio, tagger = AttachedStudio(lambda _: host), in_folder(demo_run.TAGGER)
        assert tagger is not None

        def request(of: Path, out: str) -> BlocksRequest:
            return BlocksRequest(of, pick_dataset.config_of((file,)), tagger, tmp_path / out, options=OPTIONS)

        began = time.monotonic()
        *_, found = block_jobs.search(studio, request(file, "whole"), Control())
        assert isinstance(found, Analysed)
        seconds, chosen, order = time.monotonic() - began, found.report.chosen, found.report.order
        assert chosen is not None and 2 * len(chosen.blocks) <= len(order)
        assert chosen.share >= 0.9 and chosen.fresh >= 0.9 and chosen.after >= 0.9 * chosen.before
        assert max(chosen.without.values(), default=0.0) < 0.9

        # The file baked of the set has no other blocks, and shows the same traits at the same prompts and seeds.
        baked = tmp_path / "small.safetensors"
        *_, last = baking.run(baking.plan(baking.Request(file, baked, chosen.preset)))
        assert isinstance(last, Finished)
        confirmed = recall_of(baked, set(chosen.blocks), request(baked, "baked"), studio)
        assert confirmed == pytest.approx(chosen.after, abs=1e-9)
        sys.stderr.write(
            f"\n{len(chosen.blocks)} of {len(order)} blocks ({', '.join(chosen.blocks)}): recall {chosen.before:.3f} full, "
            f"{chosen.after:.3f} set ({chosen.share:.3f}, fresh {chosen.fresh:.3f}), {confirmed:.3f} baked; "
            f"{found.images} images, {len(chosen.tried)} sets, {seconds:.0f} s\n"
        )
    finally:
        torch.set_num_threads(threads)
