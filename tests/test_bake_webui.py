"""In the real WebUI: a baked file and `lbw=` in a prompt are the same multiple of what the loader makes of the file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_lora_trainer.adapters import files
from lib_lora_trainer.app import baking
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.workshop import bake, elements, presets, vectors
from lib_lora_trainer.workshop.bake import Weights
from lib_lora_trainer.workshop.places import place_of
from test_loader_methods import CASES, adapters_for, family, loaded, merged, targets_of

pytest_plugins = ("webui_session",)
pytestmark = pytest.mark.webui
__all__ = ["family"]

VECTOR = "0.5,0.3,0,1,-0.7,0.25,1.5,0.5,0,0.75,1,0.5,0,0.1,0.2,0.3,2"
VECTOR_XL = "0.5,0.3,0,1,-0.7,0.25,1.5,0.5,0,0.75,1,0.5"
METHODS = ("lora", "loha", "lokr", "ia3", "oft", "boft", "glora", "full")


@pytest.fixture
def weights_in_prompts(webui):
    from modules import script_callbacks

    from lib_lora_trainer.hosts.webui.blockweights import BlockWeights

    ours = BlockWeights()
    assert ours.install()
    script_callbacks.on_cfg_denoiser(ours.before_step)
    if webui.model.sd_checkpoint_info.name_for_extra != "first":
        webui.load("first")
    yield ours
    ours.undo()
    script_callbacks.remove_callbacks_for_function(ours.before_step)


@pytest.mark.parametrize("options", CASES, ids=lambda options: "-".join(map(str, options.values())))
def test_the_loader_reads_the_multiple(webui, family, options):
    config = AdapterConfig(**{"rank": 2, "alpha": 1.5, **options})
    targets = targets_of(webui.model, family)
    tensors = files.to_tensors(adapters_for(targets, config), family, torch.float32)
    vector = presets.choose(VECTOR_XL if family == "sdxl" else VECTOR, family)
    weights = Weights(vector, elements.parse("BASE:k_proj:0,OUT04:attn2:1.5"), unet=0.8, text=0.6, rebase=0.5)
    draft = bake.draft(tensors, weights)
    find = baking._finder(targets, family)
    before = loaded(webui, f"{family}-before", tensors, family)
    after = loaded(webui, f"{family}-after", bake.bake(draft, find), family)
    changed = 0
    for key, module in before.modules.items():
        ratio = weights.of(place(module, family))
        weight = _weight_of(module)
        old, old_bias = module.calc_updown(weight)
        if ratio == 0 and key not in after.modules:
            continue
        new, new_bias = after.modules[key].calc_updown(weight)
        torch.testing.assert_close(new, old * ratio, rtol=2e-4, atol=2e-5, msg=f"{key} × {ratio}")
        if old_bias is not None:
            torch.testing.assert_close(new_bias, old_bias * ratio)
        changed += ratio not in (0, 1) and bool(old.abs().max() > 1e-4)
    assert changed > 60
    assert {key for key in before.modules if key not in after.modules} == {
        key
        for key, module in before.modules.items()
        if weights.of(place(module, family)) == 0 and not _stays(key, family)
    }


def place(module: Any, family: str) -> Any:
    return place_of(module.network_key.partition(".")[0], family)


def _weight_of(module: Any) -> torch.Tensor:
    sd_module = module.sd_module
    if not isinstance(sd_module, torch.nn.MultiheadAttention):
        return sd_module.weight
    index = "qkvo".index(module.network_key.rpartition("_attn_")[2][0])
    return sd_module.out_proj.weight if index == 3 else sd_module.in_proj_weight.chunk(3, 0)[index]


def _stays(key: str, family: str) -> bool:
    """Of OpenCLIP's attention the keys' projection stays as a delta of zero, else the loader would read none of them."""
    return "resblocks" in key and "_attn_" in key and family != "sd1"


@pytest.mark.parametrize("method", ["lora", "lokr", "oft", "full"])
def test_one_projection_of_open_clip_can_be_switched_off(webui, family, method):
    if family == "sd1":
        pytest.skip("SD1 has no OpenCLIP")
    part = "te2" if family == "sdxl" else "te"
    targets = [target for target in targets_of(webui.model, family) if target.layer.part == part]
    targets = [target for target in targets if target.layer.path.endswith("_proj")]
    tensors = files.to_tensors(adapters_for(targets, AdapterConfig(method=method)), family, torch.float32)
    weights = Weights(vectors.flat(1.0, family), elements.parse("BASE:k_proj:0"))
    kept = {target.layer.path: target.module.weight.detach().clone() for target in targets}
    network = loaded(webui, f"{family}-{method}-off", bake.bake(bake.draft(tensors, weights)), family)
    with merged(webui.model, network):
        for target in targets:
            same = torch.equal(target.module.weight, kept[target.layer.path])
            assert same == target.layer.path.endswith("k_proj"), target.layer.path


def test_what_wrapped_ours_goes_on(webui, weights_in_prompts, monkeypatch):
    import extra_networks_lora

    kind = extra_networks_lora.ExtraNetworkLora
    ours, calls = kind.activate, []

    def wrapping(extension, p, params_list):
        calls.append(len(params_list))
        ours(extension, p, params_list)

    monkeypatch.setattr(kind, "activate", wrapping)
    weights_in_prompts.undo()
    assert kind.activate is wrapping
    assert webui.txt2img("a cat").images
    assert calls


def write(webui: Any, host: Any, name: str, options: dict[str, Any]) -> None:
    with host.lease(Needs()) as lease:
        adapters = adapters_for(list(lease.targets()), AdapterConfig(**{"rank": 4, "alpha": 1.5, **options}))
        tensors = files.to_tensors(adapters, "sd1", torch.float32)
    save_file(tensors, str(webui.lora_folder / f"{name}.safetensors"), {"ss_base_model_version": "sd_v1"})
    host.announce(str(webui.lora_folder / f"{name}.safetensors"))


def baked(webui: Any, host: Any, name: str, blocks: str, **more: Any) -> str:
    out = webui.lora_folder / f"{name}-baked.safetensors"
    request = baking.Request(webui.lora_folder / f"{name}.safetensors", out, blocks, overwrite=True, **more)
    list(baking.run(baking.plan(request), host))
    host.announce(str(out))
    return out.stem


def pixels(result: Any) -> np.ndarray:
    return np.asarray(result.images[0], dtype=np.int32)


def merged_weights(webui: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in webui.model.named_parameters()}


@pytest.mark.parametrize("method", [*METHODS, "dora"])
def test_lbw_in_a_prompt_is_the_baked_file(webui, host, weights_in_prompts, method):
    options = {"method": "locon", "weight_decompose": True} if method == "dora" else {"method": method}
    name = f"lbw-{method}"
    write(webui, host, name, {**options, "conv_rank": 4, "rank": 4 if method != "oft" else 8})
    plain = webui.txt2img("a cat")
    with_weights = webui.txt2img(f"a cat <lora:{name}:0.7:lbw={VECTOR}>")
    ours = merged_weights(webui)
    assert with_weights.prompt == f"a cat <lora:{name}:0.7:lbw={VECTOR}>"
    assert f'Lora hashes: "{name}: ' in with_weights.infotexts[0]
    stem = baked(webui, host, name, VECTOR)
    from_file = webui.txt2img(f"a cat <lora:{stem}:0.7>")
    for key, value in merged_weights(webui).items():
        torch.testing.assert_close(value, ours[key], rtol=2e-4, atol=2e-5, msg=key)
    assert np.abs(pixels(with_weights) - pixels(from_file)).max() <= 2
    assert np.abs(pixels(with_weights) - pixels(plain)).max() > 2
    whole = webui.txt2img(f"a cat <lora:{name}:0.7>")
    assert np.abs(pixels(with_weights) - pixels(whole)).max() > 2
    again = webui.txt2img("a cat")
    assert np.array_equal(pixels(again), pixels(plain))


def test_weights_leave_nothing_behind(webui, host, weights_in_prompts):
    import networks

    write(webui, host, "lbw-clean", {"method": "lora"})
    whole = pixels(webui.txt2img("a cat <lora:lbw-clean:1>"))
    net = networks.loaded_networks[0]
    first = pixels(webui.txt2img("a cat <lora:lbw-clean:1:lbw=OUTD>"))
    assert networks.loaded_networks[0] is not net
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-clean:1>")), whole)
    assert networks.loaded_networks[0] is net  # not read from disk again
    assert net.name == "lbw-clean"
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-clean:1:lbw=OUTD>")), first)
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-clean:1:1:OUTD>")), first)  # positional
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-clean:1:OUTD>")), first)
    weights_in_prompts.undo()
    assert networks.extra_network_lora.activate.__func__.__module__ == "extra_networks_lora"


def test_two_networks_have_weights_of_their_own(webui, host, weights_in_prompts):
    write(webui, host, "lbw-one", {"method": "lora"})
    write(webui, host, "lbw-two", {"method": "full"})
    stems = [baked(webui, host, "lbw-one", "INS"), baked(webui, host, "lbw-two", "NOT OUTALL")]
    webui.txt2img(f"a cat <lora:{stems[0]}:0.5:0.8> <lora:{stems[1]}:0.4>")
    wanted = merged_weights(webui)
    webui.txt2img("a cat <lora:lbw-one:te=0.5:unet=0.8:lbw=INS> <lora:lbw-two:0.4:lbw=NOT OUTALL>")
    for key, value in merged_weights(webui).items():
        torch.testing.assert_close(value, wanted[key], rtol=2e-4, atol=2e-5, msg=key)


def test_presets_of_the_other_extension_are_read(webui, host, weights_in_prompts, tmp_path, monkeypatch):
    from modules import paths

    write(webui, host, "lbw-theirs", {"method": "lora"})
    folder = tmp_path / "sd-webui-lora-block-weight" / "scripts"
    folder.mkdir(parents=True)
    (folder / "lbwpresets.txt").write_text(f"MINE:{VECTOR}\n", encoding="utf-8")
    (folder / "elempresets.txt").write_text("HALF:IN04 OUT04:attn:0.5\n", encoding="utf-8")
    monkeypatch.setattr(paths, "extensions_dir", str(tmp_path))
    wanted = pixels(webui.txt2img(f"a cat <lora:lbw-theirs:1:lbw={VECTOR}>"))
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-theirs:1:lbw=MINE>")), wanted)
    part = pixels(webui.txt2img("a cat <lora:lbw-theirs:1:lbw=MINE:lbwe=HALF>"))
    assert not np.array_equal(part, wanted)
    known = {"presets": host.preset_files("lbwpresets.txt"), "element_presets": host.preset_files("elempresets.txt")}
    assert [path.parent for paths in known.values() for path in paths] == [folder, folder]
    stem = baked(webui, host, "lbw-theirs", "MINE", elements="HALF", **known)
    webui.txt2img(f"a cat <lora:{stem}:1>")
    there = merged_weights(webui)
    webui.txt2img("a cat <lora:lbw-theirs:1:lbw=MINE:lbwe=HALF>")
    for key, value in merged_weights(webui).items():
        torch.testing.assert_close(value, there[key], rtol=2e-4, atol=2e-5, msg=key)


def test_random_weights_are_drawn_by_the_images_seed(webui, host, weights_in_prompts):
    write(webui, host, "lbw-drawn", {"method": "lora"})
    text = ",".join("R" * 17)
    prompt = f"a cat <lora:lbw-drawn:1:lbw={text}>"
    webui.txt2img(prompt, seed=8)
    drawn = merged_weights(webui)
    webui.txt2img(prompt, seed=9)
    assert any(not torch.equal(value, drawn[key]) for key, value in merged_weights(webui).items())
    stem = baked(webui, host, "lbw-drawn", text, seed=8)
    webui.txt2img(f"a cat <lora:{stem}:1>")
    for key, value in merged_weights(webui).items():
        torch.testing.assert_close(value, drawn[key], rtol=2e-4, atol=2e-5, msg=key)


def test_mistakes_are_said_under_the_image(webui, host, weights_in_prompts):
    write(webui, host, "lbw-wrong", {"method": "lora"})
    plain = webui.txt2img("a cat")
    made = webui.txt2img("a cat <lora:lbw-wrong:1:lbw=OUTAL>")
    assert "'OUTAL' is no preset. Did you mean OUTALL?" in made.comments
    assert "The adapter was left out of this image." in made.comments
    assert np.array_equal(pixels(made), pixels(plain))


def test_the_other_extension_is_left_alone(webui, host, weights_in_prompts, caplog):
    from modules import processing

    write(webui, host, "lbw-other", {"method": "lora"})
    caplog.set_level("INFO", logger="lib_lora_trainer")
    calls: list[Any] = []
    script = SimpleNamespace(filename="/extensions/sd-webui-lora-block-weight/scripts/lora_block_weight.py")
    p = SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[script]), comment=calls.append)
    assert weights_in_prompts._is_theirs(p)
    assert weights_in_prompts._is_theirs(p)
    assert caplog.text.count("left to it") == 1
    assert not weights_in_prompts._is_theirs(processing.StableDiffusionProcessingTxt2Img(sd_model=webui.model))


def test_steps_switch_an_adapter_on_and_off(webui, host, weights_in_prompts):
    write(webui, host, "lbw-steps", {"method": "lora"})
    size = {"steps": 6}
    whole = pixels(webui.txt2img("a cat <lora:lbw-steps:1>", **size))
    none = pixels(webui.txt2img("a cat <lora:lbw-steps:te=1:unet=0>", **size))
    assert np.abs(whole - none).max() > 2
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-steps:1:start=0>", **size)), whole)
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-steps:1:start=50>", **size)), none)
    assert np.array_equal(pixels(webui.txt2img("a cat <lora:lbw-steps:1:stop=1>", **size)), none)
    part = pixels(webui.txt2img("a cat <lora:lbw-steps:1:step=2-4>", **size))
    assert not np.array_equal(part, whole)
    assert not np.array_equal(part, none)
    ends = ("start=2:stop=4", "step=2-4")
    assert all(np.array_equal(pixels(webui.txt2img(f"a cat <lora:lbw-steps:1:{end}>", **size)), part) for end in ends)


def test_half_precision_files_bake_to_half_precision(webui, host, weights_in_prompts):
    write(webui, host, "lbw-half", {"method": "lora"})
    path = webui.lora_folder / "lbw-half.safetensors"
    half = {key: value if key.endswith("alpha") else value.half() for key, value in load_file(str(path)).items()}
    save_file(half, str(path), {"ss_base_model_version": "sd_v1"})
    new = load_file(str(webui.lora_folder / f"{baked(webui, host, 'lbw-half', VECTOR)}.safetensors"))
    factors = [key for key in new if ".lora_" in key]
    assert len(factors) > 300
    assert all(torch.equal(new[key], half[key]) for key in factors)
    assert all(value.dtype == torch.float16 for key, value in new.items() if not key.endswith("alpha"))
