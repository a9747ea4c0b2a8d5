"""Baking from the page: what is said before, the file that is written, presets of one's own, and mistakes."""

import json

import pytest
import torch

pytest.importorskip("gradio")

from safetensors.torch import load_file

from evaluate_page import TRIGGER, Step
from lib_lora_trainer.base.errors import ConfigError, UserError
from lib_lora_trainer.ui import evaluate_bake_actions
from lib_lora_trainer.workshop import elements, presets


@pytest.fixture
def step(tmp_path):
    made = Step(tmp_path)
    made.look()
    return made


def multiplied(old, new, factor):
    """Whether every layer of the new file does `factor` times what it did; factor: by the beginning of its key."""
    one, two = load_file(old), load_file(new)
    for key in {name.partition(".")[0] for name in one}:
        wanted = next(value for start, value in factor.items() if key.startswith(start))
        deltas = []
        for tensors in (one, two):
            up, down = tensors.get(f"{key}.lora_up.weight"), tensors.get(f"{key}.lora_down.weight")
            scale = float(tensors[f"{key}.alpha"]) / down.shape[0] if up is not None else 0.0
            deltas.append(scale * up.flatten(1) @ down.flatten(1) if up is not None else None)
        expected = wanted * deltas[0]
        assert expected.abs().max() > 0 or not wanted
        if deltas[1] is None:
            assert not wanted, key
        else:
            assert torch.allclose(deltas[1], expected, rtol=1e-4, atol=1e-7), key


def test_what_is_previewed_is_written_announced_and_offered(step):
    source = step.files[-1]
    assert step.shown("bake_file") == source.stem
    step.do("bake_blocks", "change", bake_blocks="BASE,IN01")
    assert step.shown("bake_name") == "mikori-baked"
    step.do("bake_blocks", "change", bake_blocks="MIDD")
    assert step.shown("bake_name") == "mikori-MIDD-baked"
    step.do("bake_blocks", "change", bake_blocks="BASE,IN02", bake_name="mine")
    assert step.shown("bake_name") == "mine"
    step.do("bake_blocks", "change", bake_name="")
    before = source.read_bytes()
    step.do("bake_preview", bake_unet=0.5, bake_te=0.25, bake_rebase=0.5)
    text = step.text("bake_drafted")
    assert "mikori → " not in text and "mikori.safetensors → mikori-baked.safetensors" in text
    assert "layers multiplied" in text and "0.5 becomes 1" in text and "UNet × 0.5" in text
    assert text.count("<li data-off=1") == 24 and "<b>IN02</b>" in text
    assert not (step.host.adapters / "mikori-baked.safetensors").exists()
    step.do("bake_begin")
    made = step.host.adapters / "mikori-baked.safetensors"
    assert "Written: mikori-baked.safetensors" in step.text("bake_drafted") and source.read_bytes() == before
    multiplied(source, made, {"lora_te": 0.125, "lora_unet": 0.0})  # all of the tiny UNet is in IN01
    assert step.host.announced[-1] == str(made) and step.shown("bake_made") == str(made)
    assert step.of("bake_test", "visible") is True
    step.do("bake_test")
    assert json.loads(step.shown("evaluate_to_txt2img")) == {"prompt": f"<lora:mikori-baked:1> {TRIGGER}"}

    content = made.read_bytes()
    step.do("bake_begin")
    assert "exists already" in step.text("evaluate_said") and made.read_bytes() == content
    step.do("bake_begin", bake_blocks="", bake_te=1, bake_rebase=0.8, bake_name="second")
    multiplied(source, made.with_name("second.safetensors"), {"lora_te": 0.8, "lora_unet": 0.4})


def test_presets_fill_in_and_can_be_kept(step, tmp_path):
    assert {"MIDD", "OUTALL"} <= set(step.of("bake_preset", "choices"))
    step.do("bake_preset", "input", bake_preset="OUTALL")
    assert step.shown("bake_blocks") == "OUTALL"
    step.do("bake_keep", bake_blocks="NOT OUTALL", bake_keep_name="MINE")
    file = tmp_path / presets.FILE  # beside the projects
    assert "MINE is in" in step.text("evaluate_said") and "MINE:" in file.read_text(encoding="utf-8")
    assert "MINE" in step.of("bake_preset", "choices")
    step.do("bake_preview", bake_blocks="MINE", bake_name="with-mine")
    assert "with-mine" in step.text("bake_drafted") and step.text("evaluate_said") == ""
    step.do("bake_keep", bake_keep_name="a:b")
    assert "cannot be a preset" in step.text("evaluate_said")
    other = tmp_path / "theirs.txt"
    other.write_text("SUNDAY:1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n", encoding="utf-8")
    step.do("bake_presets", "blur", bake_presets=str(other))
    assert "SUNDAY" in step.of("bake_preset", "choices") and "MINE" not in step.of("bake_preset", "choices")


def test_presets_of_another_extension_are_offered_and_the_users_own_count_more(step):
    theirs = step.host.adapters / "lora-block-weight" / "scripts"
    theirs.mkdir(parents=True)
    (theirs / presets.FILE).write_text(f"SUNDAY:0{',0' * 16}\n", encoding="utf-8")
    (theirs / elements.FILE).write_text("HALF:IN01:attn:0.5\n", encoding="utf-8")
    step.look()
    assert "SUNDAY" in step.of("bake_preset", "choices")
    step.do("bake_preview", bake_blocks="SUNDAY", bake_name="a")
    assert "nothing would be left" in step.text("evaluate_said")
    step.do("bake_keep", bake_blocks="BASE,IN01", bake_keep_name="SUNDAY")
    assert (theirs / presets.FILE).read_text(encoding="utf-8").startswith("SUNDAY:0"), "it is not ours to change"
    step.do("bake_preview", bake_blocks="SUNDAY", bake_elements="HALF", bake_name="a")
    assert step.text("evaluate_said") == "" and "elements IN01:attn:0.5" in step.text("bake_drafted")


def test_a_tag_of_a_prompt_says_blocks_and_weights(step):
    step.do("bake_preview", bake_blocks="<lora:mikori:0.5:0.8:lbw=OUTALL:lbwe=IN01:attn:0.3>", bake_name="a")
    text = step.text("bake_drafted")
    assert "UNet × 0.8" in text and "text encoder × 0.5" in text and "elements IN01:attn:0.3" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIDD", ("MIDD", "E", 0.1, 0.2, None)),
        ("lbw=MIDD", ("MIDD", "E", 0.1, 0.2, None)),
        ("lbw=1,0,X:x=0.3", ("1,0,X", "E", 0.1, 0.2, 0.3)),
        ("<lora:a:1:lbw=MIDD>", ("MIDD", "E", 1.0, 1.0, None)),
        ("lbwe=IN05-OUT05:attn:0:lbw=ALL", ("ALL", "IN05-OUT05:attn:0", 0.1, 0.2, None)),
    ],
)
def test_block_weights_as_people_write_them(text, expected):
    assert evaluate_bake_actions.read_prompt(text, "E", (0.1, 0.2)) == expected


def test_mistakes_are_told_and_nothing_is_written(step):
    for given, told in (
        ({"bake_blocks": "MIDDLE"}, "is no preset"),
        ({"bake_blocks": "lbw MIDD"}, "no preset"),
        ({"bake_unet": None}, "UNet: None is no number"),
        ({"bake_unet": 0, "bake_te": 0}, "nothing would be left"),
        ({"bake_name": " "}, "name of the new file"),
        ({"bake_name": "../there"}, "../there"),
        ({"bake_file": "other"}, "none of this run's"),
        ({"bake_own": "/nowhere.safetensors"}, "there is no /nowhere"),
        ({"bake_rebase": float("nan")}, "Rebase: nan is no number"),
    ):
        fine = {"bake_blocks": "", "bake_unet": 1, "bake_te": 1, "bake_name": "n", "bake_own": "", "bake_rebase": 1}
        fine["bake_file"] = "mikori"
        step.do("bake_begin", **{**fine, **given})
        assert told in step.text("evaluate_said"), given
    assert sorted(step.host.adapters.glob("*.safetensors")) == sorted(step.files)
    with pytest.raises(ConfigError, match="has no lbw="):
        evaluate_bake_actions.read_prompt("<lora:a:1>", "", (1.0, 1.0))


def test_the_gate_stands_before_files_of_the_machine(tmp_path):
    def gate():
        raise UserError("closed")

    step = Step(tmp_path)
    step.look()
    object.__setattr__(step.place, "gate", gate)
    for name, trigger in (("bake_preview", "click"), ("bake_presets", "blur"), ("bake_keep", "click")):
        step.values[step.component("evaluate_said")._id] = ""
        step.do(name, trigger, bake_own=str(step.files[0]), bake_name="n", bake_presets="/etc/passwd")
        assert "closed" in step.text("evaluate_said"), name
