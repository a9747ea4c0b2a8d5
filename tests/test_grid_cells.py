"""Grids as values: what each axis changes, cells and labels, one image for equal cells, the order, keys and tags."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_lora_trainer.base import codec
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.evaluate import grid, grid_axes, grid_cells, grid_ready
from lib_lora_trainer.evaluate.grid import NONE, Axis, GridConfig
from lib_lora_trainer.evaluate.grid_axes import Worn

CONFIG = GridConfig(prompt="a girl, red hair", negative="red", adapter="/l/cat-000002.safetensors", seeds=(7, 8))


def cells(config: GridConfig) -> grid_cells.Grid:
    return grid_cells.build(config, lambda scene: scene)


def scene_with(*axes: tuple[str, str], config: GridConfig = CONFIG) -> grid_axes.Scene:
    return grid_axes.apply(grid_axes.base(config), [(Axis(kind, ("red", value)), value) for kind, value in axes])


def test_cells_stand_where_their_values_say():
    made = cells(replace(CONFIG, axes=(Axis("weight", ("0.4", "1/0.5")), Axis("adapter", ("/l/b.safetensors", NONE)))))
    assert [side.title for side in made.sides] == ["Weight", "Adapter", "", "Seed"]
    assert [side.labels for side in made.sides] == [
        ("Weight 0.4", "Weight 1/0.5"), ("b", "no adapter"), ("",), ("Seed 7", "Seed 8"),
    ]  # fmt: skip
    assert {place: (scene.seed, scene.adapter) for place, scene in made.scenes.items()} == {
        (0, 0, 0, 0): (7, Worn("/l/b.safetensors", 0.4, 0.4)),
        (1, 0, 0, 0): (7, Worn("/l/b.safetensors", 1.0, 0.5)),
        (0, 1, 0, 0): (7, None),
        (1, 1, 0, 0): (7, None),
        (0, 0, 0, 1): (8, Worn("/l/b.safetensors", 0.4, 0.4)),
        (1, 0, 0, 1): (8, Worn("/l/b.safetensors", 1.0, 0.5)),
        (0, 1, 0, 1): (8, None),
        (1, 1, 0, 1): (8, None),
    }
    # Eight cells are six images; those of one adapter and weight follow one another.
    assert [(scene.adapter.unet if scene.adapter else None, scene.seed) for scene in made.todo] == [
        (0.4, 7), (0.4, 8), (1.0, 7), (1.0, 8), (None, 7), (None, 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "changed", "label"),
    [
        ("unet", "0.3", {"adapter": Worn(CONFIG.adapter, 0.3, 1.0)}, "UNet weight 0.3"),
        ("text", "0.3", {"adapter": Worn(CONFIG.adapter, 1.0, 0.3)}, "Text encoder weight 0.3"),
        ("epoch", "12", {"adapter": Worn("/l/cat-000012.safetensors")}, "Epoch 12"),
        ("epoch", "end", {"adapter": Worn("/l/cat.safetensors")}, "end"),
        ("step", "120", {"adapter": Worn("/l/cat-step00000120.safetensors")}, "Step 120"),
        ("blocks", "MIDD", {"adapter": Worn(CONFIG.adapter, blocks="MIDD")}, "MIDD"),
        ("block", "IN04", {"adapter": Worn(CONFIG.adapter, chosen="IN04")}, "Block IN04"),
        ("second", "/o/hat.safetensors", {"second": Worn("/o/hat.safetensors")}, "hat"),
        ("second", NONE, {}, "no adapter"),
        ("prompt", "blue", {"prompt": "a girl, blue hair", "negative": "blue"}, "blue"),
        ("seed", "99", {"seed": 99}, "Seed 99"),
        ("clip_skip", "2", {"clip_skip": 2}, "Clip skip 2"),
        ("sampler", "DDIM", {"sampler": "DDIM"}, "DDIM"),
        ("scheduler", "Karras", {"scheduler": "Karras"}, "Schedule type Karras"),
        ("steps", "9", {"steps": 9}, "Sampling steps 9"),
        ("guidance", "4.5", {"guidance": 4.5}, "CFG scale 4.5"),
        ("size", "512x768", {"width": 512, "height": 768}, "512x768"),
        ("checkpoint", "other", {"checkpoint": "other"}, "other"),
        ("vae", "soft.pt", {"vae": "soft.pt"}, "soft.pt"),
        ("hires", "1.5", {"hires": 1.5}, "Hires. fix 1.5"),
        ("hires", NONE, {}, "no hires"),
    ],
)  # fmt: skip
def test_an_axis_changes_what_it_names_and_nothing_else(kind, value, changed, label):
    assert scene_with((kind, value)) == replace(grid_axes.base(CONFIG), **changed)
    assert grid_axes.label(Axis(kind, (value,)), value) == label


def test_every_kind_of_axis_is_tested():
    marks = test_an_axis_changes_what_it_names_and_nothing_else.pytestmark[0].args[1]
    assert {*grid.KINDS} - {case[0] for case in marks} == {"adapter", "weight", "block_value", "second_weight"}


def test_axes_act_in_their_own_order():
    for order in (("epoch", "adapter", "weight"), ("weight", "adapter", "epoch")):
        values = {"epoch": "3", "adapter": "/m/dog-000009.safetensors", "weight": "0.5"}
        scene = scene_with(*((kind, values[kind]) for kind in order))
        assert scene.adapter == Worn("/m/dog-000003.safetensors", 0.5, 0.5)
    blocks = scene_with(("block_value", "0.5"), ("block", "MID"))
    assert blocks.adapter == Worn(CONFIG.adapter, chosen="MID", value=0.5)
    assert scene_with(("second_weight", "0.4"), ("second", "/o.safetensors")).second == Worn("/o.safetensors", 0.4, 0.4)
    assert scene_with(("adapter", NONE), ("weight", "0.5"), ("epoch", "2")).adapter is None


def test_what_takes_long_to_change_changes_least():
    axes = (Axis("adapter", ("/a.safetensors", "/b.safetensors")), Axis("weight", ("1", "0.5")))
    made = cells(replace(CONFIG, axes=(*axes, Axis("checkpoint", ("other", ""))), seeds=(1,)))
    assert [(scene.checkpoint, scene.adapter.file[1], scene.adapter.unet) for scene in made.todo] == [
        ("", "a", 1.0), ("", "a", 0.5), ("", "b", 1.0), ("", "b", 0.5),
        ("other", "a", 1.0), ("other", "a", 0.5), ("other", "b", 1.0), ("other", "b", 0.5),
    ]  # fmt: skip
    assert len(made.scenes) == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": tuple(Axis(kind, ("1",)) for kind in ("weight", "steps", "guidance", "seed"))}, "there are 4"),
        ({"seeds": ()}, "seeds: there is none"),
        ({"axes": (Axis("steps", ("2",)), Axis("steps", ("3",)))}, "steps is there twice"),
        ({"axes": (Axis("epoch", ("2",)), Axis("step", ("3",)))}, "epoch and step both name one save"),
        ({"axes": (Axis("seed", ("2",)),)}, "an axis of seeds has them already"),
        ({"axes": (Axis("block_value", ("1",)),)}, "weight of no block"),
        ({"axes": (Axis("weight", ("1",)),), "adapter": ""}, "is empty, and the axis weight is about it"),
        ({"axes": (Axis("second_weight", ("1",)),)}, "second: is empty"),
        ({"axes": (Axis("weight", ()),)}, r"axes\[0\].values: there is none"),
        ({"axes": (Axis("weight", ("1", "heavy")),)}, r"axes\[0\].values\[1\]: weight 'heavy': is no number"),
        ({"axes": (Axis("weight", ("nan",)),)}, "no finite number"),
        ({"axes": (Axis("unet", ("1/0.5",)),)}, "is two weights"),
        ({"axes": (Axis("prompt", ("green", "blue")),)}, "'green', the first value, is not in the prompt"),
        ({"axes": (Axis("size", ("512",)),)}, "is no size"),
        ({"axes": (Axis("hires", ("9",)),)}, "a factor from 1 to 4"),
        ({"axes": (Axis("epoch", ("-1",)),)}, "write a whole number, 0 or more"),
        ({"axes": (Axis("clip_skip", ("0",)),)}, "1 or more"),
        ({"axes": (Axis("sampler", ("",)),)}, "a sampler is empty"),
    ],
)  # fmt: skip
def test_axes_that_make_no_grid(changes, said):
    with pytest.raises(ProblemsFound, match=said):
        cells(replace(CONFIG, **changes))


def test_tags_are_the_webuis():
    assert grid_cells.tag(Worn("/l/cat.v2.safetensors")) == "<lora:cat.v2:1>"
    assert grid_cells.tag(Worn("C:\\l\\cat.safetensors", unet=0.8, text=0.5)) == "<lora:cat:0.5:0.8>"
    assert grid_cells.tag(Worn("cat.safetensors", 1 / 3, 1 / 3, "1,0.5")) == "<lora:cat:0.3333333333333333:lbw=1,0.5>"
    scene = scene_with(("second", "/o/hat.safetensors"))
    assert grid_cells.prompt_of(scene) == "a girl, red hair <lora:cat-000002:1> <lora:hat:1>"
    assert grid_cells.prompt_of(scene_with(("adapter", NONE))) == "a girl, red hair"


def test_a_key_is_what_an_image_is_made_from():
    scene = grid_axes.base(CONFIG)

    def key(scene, digest="d", model="m"):
        digests = {worn.file: digest for worn in scene.worn}
        return grid_cells.key(grid_cells.facts(scene, {"model": model}, digests))

    assert len(key(scene)) == 24 and key(scene) == key(scene)
    moved = replace(scene, adapter=replace(scene.adapter, file="/elsewhere/cat-000002.safetensors"))
    assert key(moved) == key(scene)
    other = [
        key(scene, digest="e"), key(scene, model="n"), key(replace(scene, seed=9)), key(replace(scene, adapter=None)),
        key(replace(scene, adapter=replace(scene.adapter, blocks="1,0"))), key(replace(scene, guidance=7.5)),
    ]  # fmt: skip
    assert len({key(scene), *other}) == 7


def test_settings_come_from_a_file_and_files_are_beside_it(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        'adapter = "cat.safetensors"\nseeds = [3]\n[[axes]]\nkind = "adapter"\nvalues = ["none", "sub/b.safetensors"]\n'
    )
    config = grid.read(path)
    assert config.adapter == str(tmp_path / "cat.safetensors") and config.seeds == (3,)
    assert config.axes == (Axis("adapter", (NONE, str(tmp_path / "sub" / "b.safetensors"))),)
    assert codec.from_toml(GridConfig, codec.to_toml(config), "again") == config
    path.write_text('[[axes]]\nkind = "wieght"\n')
    with pytest.raises(ProblemsFound, match=r"axes\[0\].kind: 'wieght' is not a choice"):
        grid.read(path)


def test_ready_made_grids():
    saves = [f"/l/cat-{epoch:06d}.safetensors" for epoch in (1, 2, 3)] + ["/l/cat.safetensors"]
    last = grid_ready.last_epochs(CONFIG, saves, 2, ("0.4", "1"))
    assert last.adapter == saves[-1] and last.axes == (Axis("weight", ("0.4", "1")), Axis("adapter", tuple(saves[-2:])))
    other = [f"/l/dog-{epoch:06d}.safetensors" for epoch in (2, 3, 4)] + ["/l/dog.safetensors"]
    runs = cells(grid_ready.progress(replace(CONFIG, seeds=(1,)), saves, other))
    assert [scene.adapter.file for _, scene in sorted(runs.scenes.items(), key=lambda each: each[0][1::-1])] == [
        saves[1], saves[2], other[0], other[1],
    ]  # fmt: skip
    assert grid_ready.transfer(CONFIG, "a", ["x", "y", "x"]).axes[1] == Axis("checkpoint", ("", "x", "y"))
    both = grid_ready.combination(CONFIG, "a", "hat", ("0.5",))
    assert (both.second, both.axes) == ("hat", (Axis("weight", ("0.5",)), Axis("second_weight", ("0", "0.5"))))
    assert [axis.kind for axis in grid_ready.presets(CONFIG, "a").axes] == ["blocks", "weight"]
    one = grid_ready.with_and_without(replace(CONFIG, axes=(Axis("steps", ("4",)),)), "a")
    assert one.axes == (Axis("adapter", (NONE, "a")), Axis("steps", ("4",)))
    for wrong in (lambda: grid_ready.last_epochs(CONFIG, []), lambda: grid_ready.progress(CONFIG, saves, ["/l/x.pt"])):
        with pytest.raises(ConfigError):
            wrong()
