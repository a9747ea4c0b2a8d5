"""Measures tagging against the bare onnxruntime session on the same batches, and what a GPU would be kept busy with.

    python benchmarks/tagging.py [--pictures 24] [--layers 140] [--batch 4] [--rounds 3] [--milliseconds 40]

Makes pictures of 1.5 megapixels (JPEG and PNG in turn) and a model of random convolutions with WD14's contract (448 x
448 BGR in, 10,861 tags out), as heavy as is asked for. By turns: the session alone on batches that are in memory; the
tag job over the files (digests, decoding, preparation in threads, scores kept), with no scores from before. The fastest
round counts, since the machine may be shared. Then the job with a session that takes its time without the processor, as
one on a GPU does; and how many pictures a second the threads prepare while nothing else computes, which is how fast such
a session can be before it waits. Needs the package onnx.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.app.tag_jobs import Place
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset import threads
from lib_lora_trainer.dataset.pixels import open_upright
from lib_lora_trainer.tagging.options import TagOptions
from lib_lora_trainer.tagging.preprocess import Layout, prepared
from lib_lora_trainer.tagging.session import Session

TAGS, WIDTH, SIDE = 10_861, 128, 448
SIZES = ((1500, 1000), (1000, 1500), (1224, 1224))


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Write pictures of different content, of edges and of noise, and return their paths."""
    rng, paths = np.random.default_rng(1), []
    for number in range(count):
        size = SIZES[number % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        coarse = coarse.resize(size, Image.Resampling.BICUBIC)
        grain = rng.integers(-6, 7, (size[1], size[0], 1))
        image = Image.fromarray(np.clip(np.asarray(coarse).astype(np.int16) + grain, 0, 255).astype(np.uint8))
        paths.append(folder / f"{number:04d}.{'png' if number % 2 else 'jpg'}")
        image.save(paths[-1], **({"compress_level": 6} if number % 2 else {"quality": 92}))
    return paths


def make_model(folder: Path, layers: int) -> float:
    """Write a tagger of random convolutions and return how many 10⁹ multiplications it takes for a picture."""
    rng = np.random.default_rng(2)
    constants, nodes, made = [], [], 0.0

    def constant(name: str, *shape: int) -> str:
        values = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        constants.append(numpy_helper.from_array(values, name))
        return name

    nodes.append(helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]))
    nodes.append(helper.make_node("Conv", ["planes", constant("stem", WIDTH, 3, 8, 8)], ["x0"], strides=[8, 8]))
    places = (SIDE // 8) ** 2
    made += places * WIDTH * 3 * 64
    for layer in range(layers):
        weight = constant(f"w{layer}", WIDTH, WIDTH, 3, 3)
        nodes.append(helper.make_node("Conv", [f"x{layer}", weight], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"x{layer + 1}"]))
        made += places * WIDTH * WIDTH * 9
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{layers}"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", constant("head", WIDTH, TAGS)], ["logits"]))
    # As real taggers are: of thousands of tags, some dozens come to more than 0.01.
    constants.append(numpy_helper.from_array(np.full(1, -7.0, np.float32), "bias"))
    nodes.append(helper.make_node("Add", ["logits", "bias"], ["biased"]))
    nodes.append(helper.make_node("Sigmoid", ["biased"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", TAGS])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"))
    rows = [f"{number},tag_{number},{9 if number < 4 else 0},1" for number in range(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *rows]), encoding="utf-8")
    return made / 1e9


def timed(work: Callable[[], None]) -> float:
    """Return how many seconds something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pictures", 24), ("layers", 140), ("batch", 4), ("rounds", 3), ("milliseconds", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "data"
        root.mkdir()
        paths = make_pictures(root, options.pictures)
        heavy = make_model(Path(place) / "tagger", options.layers)
        say(f"{options.pictures} pictures, {heavy:.1f} · 10⁹ multiplications each, batches of {options.batch}, "
            f"{os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}")  # fmt: skip
        compare(Path(place), paths, options)


@contextmanager
def elsewhere(seconds: float) -> Iterator[None]:
    """Let sessions wait so many seconds a picture instead of computing, within the block."""
    run = Session.run

    def wait(session: Session, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(seconds * len(batch))
        return np.zeros((len(batch), session.outputs), np.float32)

    Session.run = wait
    try:
        yield
    finally:
        Session.run = run


def compare(place: Path, paths: list[Path], options: argparse.Namespace) -> None:
    """Time the bare session, the job and the preparation by turns, and write what came out."""
    root, count = place / "data", options.pictures
    layout = Layout()
    batches = [
        np.stack([prepared(open_upright(path), layout) for path in paths[start : start + options.batch]])
        for start in range(0, count, options.batch)
    ]

    def bare() -> None:
        session = onnxruntime.InferenceSession(str(place / "tagger" / "model.onnx"), providers=["CPUExecutionProvider"])
        for batch in batches:
            session.run(None, {"input": batch})

    def job() -> None:
        shutil.rmtree(root / ".lora-trainer", ignore_errors=True)
        wish = TagOptions(taggers=(str(place / "tagger"),), batch=options.batch, maximum=40, device="cpu")
        request = Request(DataConfig(sources=(SourceConfig(str(root)),)), wish)
        *_, made = tag_jobs.draft(request, Place(place), Control())
        assert isinstance(made, Draft) and len(made.proposals) == count

    def waiting() -> None:
        with elsewhere(options.milliseconds / 1000):
            job()

    def prepare() -> None:
        def look(path: Path) -> None:
            sha256(path)
            prepared(open_upright(path), layout)

        for _ in threads.in_order(look, paths, 1):
            pass

    slow = f"tag job, session elsewhere with {options.milliseconds} ms a picture"
    ways = {"bare session": bare, "tag job": job, slow: waiting, "preparation alone, in threads": prepare}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):
        best = {name: min(best[name], timed(work)) for name, work in ways.items()}
    say("| way | seconds | pictures a second |\n| --- | --- | --- |")
    for name, seconds in best.items():
        say(f"| {name} | {seconds:.2f} | {count / seconds:.2f} |")
    say(f"The job has {best['bare session'] / best['tag job']:.2f} of the bare session's speed.")
    alone = count * options.milliseconds / 1000
    say(f"With the session elsewhere it has {alone / best[slow]:.2f} of that session's speed.")
    again = timed(lambda: again_with_scores(place, root, options))
    say(f"Again, from kept scores: {again:.2f} s.")


def again_with_scores(place: Path, root: Path, options: argparse.Namespace) -> None:
    """Run the job once more with other thresholds; nothing is computed."""
    wish = TagOptions(taggers=(str(place / "tagger"),), batch=options.batch, general_threshold=0.6, device="cpu")
    for _ in tag_jobs.draft(Request(DataConfig(sources=(SourceConfig(str(root)),)), wish), Place(place), Control()):
        pass


if __name__ == "__main__":
    main()
