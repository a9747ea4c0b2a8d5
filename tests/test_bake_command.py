"""`bake` as a command: what is written, what is said, and what is refused."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adapter_cases import shake
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.targets import Assignment
from lib_lora_trainer.app import baking
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.cli import baking as command
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.save import weights
from lib_lora_trainer.workshop import presets, prompt, vectors
from loader_arithmetic import weight_change
from small_models import write_checkpoint

METADATA = {"ss_base_model_version": "sd_v1", "ss_output_name": "old", "modelspec.title": "old", "ss_seed": "7"}


def options(*arguments):
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    return parser.parse_args(["bake", *map(str, arguments)])


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return StandaloneHost(write_checkpoint("sd1", folder / "small.safetensors"), folder, device="cpu")


def adapter_file(host, path, dtype=torch.float32, **settings):
    config = AdapterConfig(**{"rank": 2, "alpha": 1.5, **settings})
    with host.lease(Needs()) as lease:
        found = [target for target in lease.targets() if methods.supports(target.layer, config.method)]
        chosen = [target for target in found if not target.layer.norm]
        made = {}
        for target in chosen:
            made[target.layer] = methods.build(target, Assignment(config.method, 2, 1.5), config, seed=5).eval()
            shake(made[target.layer], 0.2)
        bases = {files.file_key(target.layer, "sd1"): target.module.weight.detach().clone() for target in chosen}
        weights.write(path, files.to_tensors(made, "sd1", dtype), METADATA)
    return bases


def parts_of(tensors, key):
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == key}


@pytest.mark.parametrize("dora", [False, True])
def test_a_baked_file_is_the_multiple_and_says_so(host, tmp_path, capsys, dora):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    bases = adapter_file(host, old, method="lora", weight_decompose=dora)
    arguments = [
        "--blocks",
        "IN04-05,MID,BASE",
        "--unet",
        "0.5",
        "--te",
        "0.25",
        "--rebase",
        "0.5",
        "-o",
        new,
        "--json",
    ]
    if dora:
        settled = baking.plan(baking.Request(old, new, "IN04-05,MID,BASE", unet=0.5, text=0.25, rebase=0.5))
        with pytest.raises(ConfigError, match="are DoRA or rotations.*--checkpoint"):
            list(baking.run(settled))
        assert not new.exists()
        list(baking.run(settled, host))
    else:
        assert command.bake(options(old, *arguments)) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines[0]["event"] == "proposal"
        assert lines[-1]["files"] == [str(new)]
    before, after = load_file(str(old)), load_file(str(new))
    seen = set()
    for key, base in bases.items():
        text = key.startswith("lora_te")
        chosen = any(part in key for part in ("down_blocks_1_resnets", "down_blocks_1_att", "mid_block"))
        outside = "time_embedding" in key or "conv_out" in key
        ratio = 0.125 if text else 0.25 if chosen or outside else 0.0
        seen.add(ratio)
        changed = parts_of(after, key)
        assert bool(changed) == bool(ratio), key
        if ratio:
            wanted = ratio * weight_change(parts_of(before, key), base)
            torch.testing.assert_close(weight_change(changed, base), wanted, rtol=1e-4, atol=1e-5, msg=key)
    assert seen == {0.0, 0.125, 0.25}
    with safe_open(str(new), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_seed"] == "7"
    assert metadata["ss_output_name"] == metadata["modelspec.title"] == "new"
    assert metadata["sshs_model_hash"] == weights.content_hash(new.read_bytes())
    (done,) = json.loads(metadata["lora_trainer_baked"])
    assert (done["file"], done["unet"], done["text_encoder"], done["rebase"]) == ("old.safetensors", 0.5, 0.25, 0.5)
    assert presets.choose(done["blocks"], "sd1") == presets.choose("IN04-05,MID,BASE", "sd1")


def test_weight_one_keeps_every_byte_and_a_second_bake_is_added(host, tmp_path):
    old, same, half = (tmp_path / f"{name}.safetensors" for name in ("old", "same", "half"))
    adapter_file(host, old, torch.float16, method="loha")
    list(baking.run(baking.plan(baking.Request(old, same))))
    before, after = load_file(str(old)), load_file(str(same))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    list(baking.run(baking.plan(baking.Request(same, half, rebase=0.5))))
    with safe_open(str(half), framework="pt") as file:
        done = json.loads(file.metadata()["lora_trainer_baked"])
    assert [entry["rebase"] for entry in done] == [1.0, 0.5]


def test_a_dry_run_writes_nothing(host, tmp_path, capsys):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    adapter_file(host, old, method="lora")
    assert command.bake(options(old, "--blocks", "MIDD", "-o", new, "--dry-run")) == 0
    assert "multiplied" in capsys.readouterr().out
    assert command.bake(options(old, "--blocks", "MIDD", "-o", new, "--dry-run", "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["family"] == "sd1"
    assert facts["left_out"] > 0
    assert any("26 numbers" in note for note in facts["notes"])
    assert not new.exists()


@pytest.mark.parametrize("option", ["--presets", "--element-presets"])
def test_presets_that_are_not_there_are_no_empty_ones(host, tmp_path, option):
    old = tmp_path / "old.safetensors"
    adapter_file(host, old, method="lora")
    with pytest.raises(ConfigError, match=r"there is no file .*none\.txt"):
        command.bake(options(old, "--blocks", "MIDD", "-o", tmp_path / "new.safetensors", option, tmp_path / "none.txt"))


def test_files_are_replaced_on_demand_alone(host, tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    adapter_file(host, old, method="lora")
    new.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"new\.safetensors: exists already.*--overwrite"):
        command.bake(options(old, "--rebase", "0.5", "-o", new))
    assert new.read_bytes() == b"mine"
    assert command.bake(options(old, "--rebase", "0.5", "-o", new, "--overwrite")) == 0
    assert load_file(str(new))
    with pytest.raises(ConfigError, match="is the file that is read"):
        command.bake(options(old, "--rebase", "0.5", "-o", old, "--overwrite"))
    with pytest.raises(ConfigError, match=r"Write new\.safetensors"):
        command.bake(options(old, "-o", tmp_path / "new.ckpt"))


def test_what_cannot_be_baked_is_refused(tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_file({"lora_unet_mid_block_resnets_0_conv1.oft_diag": torch.ones(2, 2, 2)}, str(old))
    with pytest.raises(DataError, match="oft_diag is no adapter that can be multiplied"):
        baking.plan(baking.Request(old, new, rebase=0.5))
    with pytest.raises(ConfigError, match="nothing would be left"):
        baking.plan(baking.Request(old, new, "NONE"))
    with pytest.raises(ConfigError, match="its weight is nan"):
        baking.plan(baking.Request(old, new, unet=float("nan")))
    with pytest.raises(DataError, match="cannot be read as an adapter"):
        baking.plan(baking.Request(tmp_path / "none.safetensors", new))


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["a", "1"], None),
        (["a", "0.5", "0.8", "16"], None),
        (["a", "1", "te=0.5"], None),
        (["a", "0@0,1@10"], None),
        (["a", "1", "lbw=MIDD"], (("a", "1.0", "1.0"), "MIDD", "", 1.0, None, None)),
        (["a", "0.5", "0.8", "lbw=MIDD", "x=0.3"], (("a", "0.5", "0.8"), "MIDD", "", 0.3, None, None)),
        (["a", "te=0.5", "unet=0.8", "lbwe=ATTNDEEPON"], (("a", "0.5", "0.8"), "", "ATTNDEEPON", 1.0, None, None)),
        (["a", "unet=0.8", "lbw=INS"], (("a", "0.8", "0.8"), "INS", "", 1.0, None, None)),
        (["a", "1", "1", "16", "lbw=INS"], (("a", "1.0", "1.0", "16"), "INS", "", 1.0, None, None)),
        (["a", "1", "start=3", "stop=9"], (("a", "1.0", "1.0"), "", "", 1.0, 3, 9)),
        (["a", "1", "step=3-9"], (("a", "1.0", "1.0"), "", "", 1.0, 3, 9)),
    ],
)
def test_tags_are_read(items, expected):
    tag = prompt.read(items)
    assert (tag and (tag.items, tag.blocks, tag.elements, tag.x, tag.start, tag.stop)) == expected


def test_positions_that_the_loader_fails_on():
    vector = ",".join("1" * 17)
    assert prompt.read(["a", "0.5", "MIDD"]).items == ("a", "0.5", "0.5")
    assert prompt.read(["a", "0.5", "MIDD"]).blocks == "MIDD"
    assert prompt.read(["a", "0.5", "0.8", vector]).blocks == vector
    assert prompt.read(["a", "0.5", "0.8", vector]).unet == 0.8
    whole = prompt.read(["a", "0.5", "MIDD", "ATTNDEEPON", "0.2"])
    assert (whole.blocks, whole.elements, whole.x, whole.text) == ("MIDD", "ATTNDEEPON", 0.2, 0.5)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["a", "1", "lbw", "MIDD"], "has no =. Write lbw="),
        (["a", "1", "lbw MIDD"], "Write lbw=MIDD"),
        (["a", "one", "lbw=MIDD"], "te=one: is no number"),
        (["a", "1", "x=nan", "lbw=X"], "x=nan: is no number"),
        (["a", "1", "step=5"], "step=5: has no end. Write step=A-B"),
        (["a", "1", "start=half"], "start=half: is no number of a step"),
    ],
)
def test_mistakes_in_tags_are_named(items, message):
    with pytest.raises(ConfigError) as found:
        prompt.read(items)
    assert message in str(found.value)


def test_a_written_vector_can_be_given_to_the_command():
    vector = vectors.from_blocks({"IN04": 0.5, "M00": -1.0}, "sd1", rest=1.0)
    assert presets.choose(vectors.write(vector), "sd1") == vector
