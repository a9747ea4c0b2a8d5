"""The toy world: its pictures, its tagger, its checkpoint and the bundled character."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.demo import world

ASSETS = Path(world.__file__).parent / "assets"


def figures(count: int, seed: int) -> list[world.Figure]:
    rng = Random(seed)
    return [world.sample_any_figure(rng) for _ in range(count)]


def test_drawing_is_a_function_of_figure_and_seed() -> None:
    figure = world.sample_figure(Random(3))
    first = np.asarray(world.draw(figure, 7))
    assert first.shape == (world.SIDE, world.SIDE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, np.asarray(world.draw(figure, 7)))
    assert not np.array_equal(first, np.asarray(world.draw(figure, 8)))


@pytest.mark.parametrize("group", [*world.GROUPS, "ornaments"])
def test_every_trait_of_a_group_is_visible(group: str) -> None:
    from dataclasses import replace

    base = world.CHARACTER
    choices = [(ornament,) for ornament in world.NEW_ORNAMENTS] if group == "ornaments" else world.GROUPS[group]
    pictures = [np.asarray(world.draw(replace(base, **{group: choice}), 1), np.int16) for choice in choices]
    for index, left in enumerate(pictures):
        for right in pictures[index + 1 :]:
            changed = np.abs(left - right).max(2) > 60
            assert changed.sum() > 25


def test_tags_name_every_trait_once() -> None:
    seen: set[str] = set()
    for figure in figures(400, 1):
        tags = world.tags(figure)
        assert len(set(tags)) == len(tags)
        assert set(tags) <= set(world.TAGGER_TAGS)
        seen |= set(tags)
    assert seen == set(world.TAGGER_TAGS)


def test_the_checkpoint_world_lacks_the_new_traits() -> None:
    rng = Random(2)
    seen = {tag for _ in range(2000) for tag in world.tags(world.sample_figure(rng))}
    assert seen == set(world.VOCABULARY)
    assert not seen & set(world.CHARACTER_TRAITS)
    assert set(world.CHARACTER_TRAITS) <= set(world.tags(world.sample_character(rng)))


def tagger_answers(pictures: list[Image.Image]) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(ASSETS / "tagger" / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    (model_input,) = session.get_inputs()
    assert isinstance(model_input.shape[0], str)
    assert model_input.shape[1:] == [448, 448, 3]
    assert model_input.type == "tensor(float)"
    large = [picture.resize((448, 448), Image.Resampling.BICUBIC) for picture in pictures]
    batches = [
        np.stack([np.asarray(image, np.float32)[:, :, ::-1] for image in large[i : i + 10]])
        for i in range(0, len(large), 10)
    ]
    return np.concatenate([session.run(None, {model_input.name: batch})[0] for batch in batches])


def tagger_labels() -> list[dict[str, str]]:
    with (ASSETS / "tagger" / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tagger_labels_follow_the_contract() -> None:
    rows = tagger_labels()
    assert list(rows[0]) == ["tag_id", "name", "category", "count"]
    assert [row["name"] for row in rows[:4]] == ["general", "sensitive", "questionable", "explicit"]
    assert [row["category"] for row in rows] == ["9"] * 4 + ["0"] * len(world.TAGGER_TAGS)
    assert [row["name"] for row in rows[4:]] == [tag.replace(" ", "_") for tag in world.TAGGER_TAGS]


def test_tagger_reads_unseen_drawings() -> None:
    drawn = figures(60, 987_654)
    answers = tagger_answers([world.draw(figure, 9_000_000 + index) for index, figure in enumerate(drawn)])
    assert answers.shape == (60, len(tagger_labels()))
    assert answers.min() >= 0
    assert answers.max() <= 1
    assert (answers[:, :4].argmax(1) == 0).all()
    wanted = np.array([[tag in world.tags(figure) for tag in world.TAGGER_TAGS] for figure in drawn])
    found = answers[:, 4:] >= 0.5
    hits = (found & wanted).sum()
    assert 2 * hits / (found.sum() + wanted.sum()) >= 0.95


def test_tagger_tells_red_from_blue() -> None:
    """Blue and red swapped, as RGB instead of BGR would do, must change the answer."""
    from dataclasses import replace

    figure = replace(world.sample_figure(Random(5)), outfit="red dress", person="1girl")
    picture = world.draw(figure, 1)
    swapped = Image.fromarray(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    red, blue = (4 + world.TAGGER_TAGS.index(tag) for tag in ("red dress", "blue dress"))
    right, wrong = tagger_answers([picture, swapped])
    assert right[red] > 0.5 > right[blue]
    assert wrong[red] < 0.5 < wrong[blue]


def test_assets_are_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 24.8e6


def test_character_captions_leave_its_traits_out() -> None:
    folder = ASSETS / "character" / f"10_{world.TRIGGER}"
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 24
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (world.SIDE, world.SIDE)
        tags = path.with_suffix(".txt").read_text(encoding="utf-8").strip().split(", ")
        assert tags[0] == world.TRIGGER
        assert set(tags[1:]) <= set(world.VOCABULARY)


def test_tagger_sees_the_traits_in_the_character_pictures() -> None:
    folder = ASSETS / "character" / f"10_{world.TRIGGER}"
    answers = tagger_answers([Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))])
    columns = [4 + world.TAGGER_TAGS.index(tag) for tag in world.CHARACTER_TRAITS]
    assert (answers[:, columns] >= 0.5).mean() >= 0.97


def test_checkpoint_has_ldm_keys_in_fp16() -> None:
    safetensors = pytest.importorskip("safetensors")
    np_shapes: dict[str, tuple[int, ...]] = {}
    with safetensors.safe_open(str(ASSETS / "toy.safetensors"), framework="numpy") as file:
        metadata = file.metadata()
        for key in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            value = file.get_tensor(key)
            assert value.dtype == np.float16, key
            assert np.isfinite(value).all(), key
            assert value.any(), key
            np_shapes[key] = value.shape
    factor = float(metadata["scale_factor"])
    assert 0.05 < factor < 5
    yaml = (ASSETS / "toy.yaml").read_text(encoding="utf-8")
    assert f"scale_factor: {metadata['scale_factor']}\n" in yaml
    assert "version: TEXT_ENCODER_FOLDER\n" in yaml
    unet = "model.diffusion_model."
    expected = {
        unet + "input_blocks.0.0.weight": (32, 4, 3, 3),
        unet + "time_embed.0.weight": (128, 32),
        unet + "input_blocks.1.1.proj_in.weight": (32, 32, 1, 1),
        unet + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, 64),
        unet + "input_blocks.9.0.op.weight": (96, 96, 3, 3),
        unet + "input_blocks.10.0.in_layers.2.weight": (128, 96, 3, 3),
        unet + "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (1024, 128),
        unet + "output_blocks.2.1.conv.weight": (128, 128, 3, 3),
        unet + "output_blocks.5.2.conv.weight": (96, 96, 3, 3),
        unet + "out.2.weight": (4, 32, 3, 3),
        "first_stage_model.decoder.mid.attn_1.q.weight": (64, 64, 1, 1),
        "first_stage_model.decoder.up.3.block.0.conv1.weight": (64, 64, 3, 3),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 64),
        "cond_stage_model.transformer.text_model.encoder.layers.2.mlp.fc1.weight": (256, 64),
    }
    for key, shape in expected.items():
        assert np_shapes[key] == shape, key
    heads = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model.")
    assert all(key.startswith(heads) for key in np_shapes)
