"""The host inside the WebUI: what it refuses, and that it computes what the WebUI computes."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import host_contract
import host_needs
from lib_lora_trainer.base.errors import ConfigError, HostRefusal, NumericalError
from lib_lora_trainer.hosts.api import ImageRequest, Needs
from webui_steps import REQUEST, captions, noisy, pixels, train_a_little

pytest_plugins = ("webui_session",)
LONG = ", ".join(f"word number {number} in a long caption" for number in range(24))


@pytest.mark.parametrize("check", [*host_contract.CHECKS, *host_needs.CHECKS], ids=lambda check: check.__name__)
def test_the_contract_of_hosts(host, check):
    check(host)


WAYS = {
    "plain": Needs(),
    "text encoder": Needs(text_encoder_gradient=True, gradient_checkpointing=True),
    **host_needs.COMPUTED_OTHERWISE,
}


@pytest.mark.parametrize("needs", WAYS.values(), ids=WAYS)
def test_weights_come_back(host, webui, needs):
    host_contract.check_weights_come_back(host, webui.digest, needs)


def test_info_and_layers(host, webui):
    info = host.info()
    assert (info.host, info.family, info.prediction, info.text_encoders) == ("webui", "sd1", "epsilon", ("te",))
    assert (info.name, info.title, info.dtype) == ("first", webui.model.sd_checkpoint_info.title, "float32")
    assert info.file == str(webui.folder / "first.safetensors")
    assert len(info.sha256) == 64
    layers = host.layers()
    unet = [layer.path for layer in layers if layer.part == "unet"]
    assert "input_blocks.1.1.transformer_blocks.0.attn1.to_q" in unet
    assert sum(layer.part == "te" for layer in layers) == 3 * (6 + 2) + 1
    assert layers[-1].path == "text_model.final_layer_norm"
    assert (layers[-1].inputs, layers[-1].norm) == (32, True)
    with host.lease(Needs()) as lease:
        targets = lease.targets()
        assert tuple(target.layer for target in targets) == tuple(layers)
        modules = dict(webui.model.model.diffusion_model.named_modules())
        assert all(modules[t.layer.path] is t.module for t in targets if t.layer.part == "unet")


def test_nothing_loaded_is_refused_without_loading(host, monkeypatch):
    from modules import sd_models

    monkeypatch.setattr(sd_models.model_data, "sd_model", None)
    monkeypatch.setattr(sd_models, "load_model", lambda *_: pytest.fail("asking must not load"))
    with pytest.raises(HostRefusal, match="Choose one in the Stable Diffusion checkpoint list"):
        host.info()


@pytest.mark.parametrize(
    ("owner", "name", "value", "words"),
    [
        ("model", "is_sd3", True, "Stable Diffusion 3"),
        ("model", "is_ssd", True, "SSD-1B"),
        ("model", "parameterization", "x0", "predicts 'x0'"),
        ("wrapper", "conditioning_key", "hybrid", "inpainting"),
        ("stem", "in_channels", 9, "9 input channels"),
        ("devices", "fp8", True, "FP8 weight to Disable"),
        ("devices", "force_fp16", True, "--precision half"),
        ("sd_unet", "current_unet", SimpleNamespace(), "SD Unet to None"),
        ("sd_unet", "unet_options", [SimpleNamespace(label="engine", model_name="first")], "SD Unet to None"),
        ("shared", "native", True, "SD.Next"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_next_step(host, webui, monkeypatch, owner, name, value, words):
    from modules import devices, sd_unet, shared

    unet = webui.model.model.diffusion_model
    owners = {"model": webui.model, "wrapper": webui.model.model, "stem": unet.input_blocks[0][0]}
    target = {**owners, "devices": devices, "sd_unet": sd_unet, "shared": shared}[owner]
    monkeypatch.setattr(target, name, value, raising=False)
    with pytest.raises(HostRefusal, match=words):
        host.lease(Needs())


def test_lowvram_is_refused_and_medvram_is_not(host, webui, monkeypatch):
    from modules import shared

    monkeypatch.setattr(webui.model, "lowvram", True)
    host.info()
    monkeypatch.setattr(shared.cmd_opts, "lowvram", True)
    with pytest.raises(HostRefusal, match="--medvram"):
        host.info()


def test_arithmetic_that_the_machine_lacks_is_refused(host):
    with pytest.raises(HostRefusal, match="fp16 arithmetic needs a GPU"):
        host.lease(Needs(compute_dtype=torch.float16))


def test_prediction_is_the_webuis(host, webui, monkeypatch):
    from modules import devices

    latents, timesteps = noisy()
    context = webui.model.get_learned_conditioning(["a red cat", "b"])
    with torch.no_grad():
        expected = webui.model.apply_model(latents, timesteps, {"c_crossattn": [context]})
    # What the WebUI is set to without --no-half. It casts the embedding of timesteps to it, which costs precision.
    monkeypatch.setattr(devices, "dtype_unet", torch.float16)
    # As a generation with "Zero Terminal SNR" leaves it; training goes by the original.
    monkeypatch.setitem(webui.model._buffers, "alphas_cumprod", torch.zeros(1000))
    with host.lease(Needs()) as lease:
        assert lease.alphas_cumprod[0] > 0.99
        text = lease.encode_text(captions("a red cat", "b"))
        torch.testing.assert_close(text.context, context)
        output = lease.predict(latents, timesteps, text)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    with host.lease(Needs(compute_dtype=torch.bfloat16)) as lease:
        rough = lease.predict(latents, timesteps, lease.encode_text(captions("a red cat", "b")))
        assert rough.dtype == torch.float32
        assert 1e-5 < (rough - expected).abs().mean() < 0.1 * expected.std()


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_text_is_encoded_as_the_webui_does(host, webui, monkeypatch, clip_skip):
    from modules import sd_hijack, shared

    monkeypatch.setattr(sd_hijack.model_hijack, "fixes", None)
    monkeypatch.setitem(shared.opts.data, "CLIP_stop_at_last_layers", clip_skip)
    monkeypatch.setitem(shared.opts.data, "emphasis", "None")
    texts = ["", "a cat", LONG, "one, two, " + "three " * 80, "(weights:1.5) are [plain] text"]
    for caption in texts:
        expected = webui.model.get_learned_conditioning([caption])
        with host.lease(Needs()) as lease:
            chunks = expected.shape[1] // 77
            monkeypatch.setitem(shared.opts.data, "CLIP_stop_at_last_layers", 1)
            monkeypatch.setitem(shared.opts.data, "emphasis", "Original")
            # As an interrupted generation with a textual inversion leaves it.
            sd_hijack.model_hijack.fixes = [[(0, SimpleNamespace(vec=torch.ones(1, 32)))]]
            given = lease.encode_text(captions(caption, clip_skip=clip_skip, chunks=chunks)).context
            padded = lease.encode_text(captions(caption, clip_skip=clip_skip, chunks=chunks + 1)).context
            sd_hijack.model_hijack.fixes = None
        monkeypatch.setitem(shared.opts.data, "CLIP_stop_at_last_layers", clip_skip)
        monkeypatch.setitem(shared.opts.data, "emphasis", "None")
        torch.testing.assert_close(given, expected)
        torch.testing.assert_close(padded[:, : 77 * chunks], expected)


@pytest.mark.webui  # the stand-in knows no emphasis
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_emphasis_is_the_webuis(host, webui, monkeypatch, clip_skip):
    from modules import shared

    texts = [
        "(masterpiece:1.3), a [red] cat, ((sitting)), \\(series\\), (a [b (c:1.5)]:0.8)",
        "a (cat",
        "(" + ", ".join(f"word number {number}" for number in range(16)) + ":0.6), (the end:1.4), x",
        "(" + "long words, " * 60 + "the end:1.2), [" + "more of them, " * 5 + "] a",
    ]
    for caption in texts:
        monkeypatch.setitem(shared.opts.data, "CLIP_stop_at_last_layers", clip_skip)
        expected = webui.model.get_learned_conditioning([caption])
        monkeypatch.setitem(shared.opts.data, "CLIP_stop_at_last_layers", 1)
        chunks = expected.shape[1] // 77
        assert chunks <= 3
        with host.lease(Needs()) as lease, torch.no_grad():
            request = captions(caption, "a cat", clip_skip=clip_skip, chunks=chunks)
            found = lease.encode_text(dataclasses.replace(request, emphasis=True)).context
            plain = lease.encode_text(captions(caption, "a cat", clip_skip=clip_skip, chunks=chunks)).context
            assert lease.count_chunks([caption], emphasis=True) == (chunks,)
        torch.testing.assert_close(found[:1], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1:], plain[1:], rtol=1e-4, atol=1e-5)
        assert (found[:1] - plain[:1]).abs().max() > 0.05


def test_tokens_and_clip_skip(host):
    with host.lease(Needs()) as lease:
        assert lease.count_chunks(["", "a, (b)", "cat " * 75, "cat " * 76]) == (1, 1, 1, 2)
        with pytest.raises(ConfigError, match="has 3 layers"):
            lease.encode_text(captions("a", clip_skip=4))


def test_pictures_are_encoded_in_float32_whatever_the_vae_is_kept_in(host, webui, monkeypatch):
    vae, scale = webui.model.first_stage_model, webui.model.scale_factor
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(images)
    with host.lease(Needs()) as lease:
        posterior = lease.encode_images(images)
        torch.testing.assert_close(posterior.mean, expected.mean * scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(posterior.std, expected.std * scale, rtol=1e-4, atol=1e-5)
        broken = images.clone()
        broken[1, 0, 3, 3] = torch.nan
        with pytest.raises(NumericalError, match="NaN"):
            lease.encode_images(broken)
    originals = [parameter.data for parameter in vae.parameters()]
    vae.to(torch.bfloat16)
    before = [parameter.clone() for parameter in vae.parameters()]
    try:
        with host.lease(Needs()) as lease:
            rough = lease.encode_images(images)
        assert rough.mean.dtype == torch.float32
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before, vae.parameters(), strict=True))
        torch.testing.assert_close(rough.mean, posterior.mean, rtol=0.2, atol=0.05)
    finally:
        for parameter, data in zip(vae.parameters(), originals, strict=True):
            parameter.data = data


def test_images_are_txt2imgs(host, webui):
    from modules import processing, shared

    webui.params_txt.write_text("the user's last prompt", encoding="utf-8")
    cached = processing.StableDiffusionProcessing.cached_c
    with host.lease(Needs(gradient_checkpointing=True)) as lease:
        state = host_contract.random_state()
        shared.state.job_no, shared.state.textinfo = 4, "step 4"
        made = list(lease.generate([REQUEST, ImageRequest("a blue dog", seed=6, steps=3, width=64, height=64)]))
        assert host_contract.random_state() == state
        assert (shared.state.job_no, shared.state.textinfo, shared.state.job) == (4, "step 4", "lora-trainer")
        train_a_little(lease)
    assert webui.params_txt.read_text(encoding="utf-8") == "the user's last prompt"
    assert processing.StableDiffusionProcessing.cached_c is cached
    assert shared.opts.live_previews_enable, "as it was before"
    expected = webui.txt2img()
    assert np.array_equal(pixels(made[0].image), pixels(expected.images[0]))
    assert made[0].infotext == expected.infotexts[0]
    assert made[0].request == REQUEST
    assert np.abs(pixels(made[1].image) - pixels(expected.images[0])).mean() > 1


@pytest.mark.parametrize("name", ["Nonsense", "Euler nonsense", "DPM++ 2M nonsense"])
def test_unknown_samplers_are_refused(host, name):
    with host.lease(Needs()) as lease, pytest.raises(ConfigError, match=f"{name[-8:]}' is unknown"):
        list(lease.generate([ImageRequest("a", sampler=name)]))
    assert "Euler" in host.samplers()


def test_samplers_with_their_schedule_in_the_name_are_known(host):
    karras = ImageRequest("a red cat", "blurred", 5, 3, 4.0, 64, 64, "Euler Karras", 1)
    with host.lease(Needs()) as lease:
        assert len(list(lease.generate([karras]))) == 1


def test_clip_skip_of_images(host, webui, monkeypatch):
    from modules import shared

    with host.lease(Needs()) as lease:
        (skipped,) = lease.generate([ImageRequest("a red cat", "blurred", 5, 3, 4.0, 64, 64, "Euler", 2)])
    assert shared.opts.CLIP_stop_at_last_layers == 1
    monkeypatch.setitem(shared.opts.data, "CLIP_stop_at_last_layers", 2)
    assert np.array_equal(pixels(skipped.image), pixels(webui.txt2img().images[0]))


def test_announced_files_are_in_the_list(host, webui):
    import networks

    assert host.adapter_folder() == str(webui.lora_folder)
    path = webui.lora_folder / "announced.safetensors"
    save_file({"lora_unet_out_2.alpha": torch.ones(())}, str(path))
    host.announce(str(path))
    assert "announced" in networks.available_networks
    path.unlink()


@pytest.mark.webui
def test_these_tests_run_in_the_real_webui():
    import modules

    assert os.environ["SD_WEBUI_DIR"] in str(modules.__path__)
