"""The lease inside the WebUI: exclusive, undisturbed, and everything afterwards as it was."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.hosts.api import ImageRequest, Needs
from webui_steps import REQUEST, captions, noisy, pixels, train_a_little

pytest_plugins = ("webui_session",)


@pytest.mark.parametrize("failing", [False, True])
def test_everything_is_afterwards_what_it_was(host, webui, failing):
    from modules import devices, shared

    unet = webui.model.model.diffusion_model
    block = type(unet.input_blocks[1][1].transformer_blocks[0].attn1)
    image = pixels(webui.txt2img().images[0])
    options = dict(shared.opts.data)
    attributes = {name: set(vars(module)) for name, module in webui.model.named_modules()}
    flags = [(p.requires_grad, p.grad) for p in webui.model.parameters()]
    before = (webui.digest(), block.forward, devices.dtype_unet, torch.get_rng_state().tolist())
    assert any(wanted for wanted, _ in flags), "the UNet's parameters want gradients until the lease freezes them"
    try:
        with host.lease(Needs(text_encoder_gradient=True, gradient_checkpointing=True)) as lease:
            assert not any(p.requires_grad for p in webui.model.parameters())
            lease.encode_images(torch.zeros(1, 3, 64, 64))
            assert train_a_little(lease).abs().sum() > 0
            list(lease.generate([REQUEST]))
            torch.rand(1)
            if failing:
                raise FloatingPointError("in the loop")
    except FloatingPointError:
        assert failing
    assert (webui.digest(), block.forward, devices.dtype_unet, torch.get_rng_state().tolist()) == before
    assert [(p.requires_grad, p.grad) for p in webui.model.parameters()] == flags
    assert {name: set(vars(module)) for name, module in webui.model.named_modules()} == attributes
    assert dict(shared.opts.data) == options
    assert (shared.state.job, shared.state.job_count, shared.state.interrupted) == ("", 0, False)
    assert np.array_equal(pixels(webui.txt2img().images[0]), image)


def test_training_does_not_depend_on_the_users_attention(host, webui, monkeypatch):
    attention = webui.model.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn1

    def broken(*_, **__):
        raise AssertionError("the user's choice was called")

    with monkeypatch.context() as patch:
        patch.setattr(type(attention), "forward", broken)
        with host.lease(Needs()) as lease:
            assert train_a_little(lease).abs().sum() > 0
            with pytest.raises(AssertionError, match="user's choice"):
                list(lease.generate([REQUEST]))
            assert train_a_little(lease).abs().sum() > 0
    tiled = type(attention).forward.__get__(attention)
    monkeypatch.setitem(attention.__dict__, "forward", tiled)  # as hypertile leaves it
    with host.lease(Needs()) as lease:
        train_a_little(lease)
    assert attention.__dict__["forward"] is tiled


def test_recomputing_changes_memory_but_no_gradient(host, webui, monkeypatch):
    blocks = [m for m in webui.model.model.diffusion_model.modules() if type(m).__name__ == "BasicTransformerBlock"]
    calls = []
    forward = type(blocks[0])._forward
    monkeypatch.setattr(type(blocks[0]), "_forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    gradients = []
    for recompute in (False, True):
        calls.clear()
        with host.lease(Needs(gradient_checkpointing=recompute)) as lease:
            gradients.append(train_a_little(lease))
        # The first block is recomputed on the way back, and with it every block behind it that leads to a gradient.
        assert (len(calls) > len(blocks)) == recompute
    torch.testing.assert_close(gradients[0], gradients[1])


def test_leftovers_of_generations_are_put_aside_and_back(host, webui, monkeypatch):
    from modules import sd_hijack, shared

    latents, timesteps = noisy()
    with host.lease(Needs()) as lease:
        text = lease.encode_text(captions("a"))
        text = type(text)(text.context.repeat(2, 1, 1))
        expected = lease.predict(latents, timesteps, text)
    convolution = webui.model.model.diffusion_model.input_blocks[0][0]
    tile = SimpleNamespace(enabled=True)
    monkeypatch.setitem(convolution.__dict__, "__webui_hypertile_params", tile)
    sd_hijack.model_hijack.apply_circular(True)
    marker = SimpleNamespace(name="marker", layers={})
    shared.loaded_hypernetworks.append(marker)
    try:
        with host.lease(Needs()) as lease:
            assert convolution.padding_mode == "zeros"
            assert not tile.enabled
            assert not shared.loaded_hypernetworks
            assert torch.equal(lease.predict(latents, timesteps, text), expected)
        assert convolution.padding_mode == "circular"
        assert tile.enabled
        assert shared.loaded_hypernetworks == [marker]
    finally:
        shared.loaded_hypernetworks.clear()
        sd_hijack.model_hijack.apply_circular(False)


def test_networks_of_the_last_image_are_taken_out_of_the_weights(host, webui):
    base, digest = pixels(webui.txt2img().images[0]), webui.digest()
    generator = torch.Generator().manual_seed(9)
    layers = ["unet_input_blocks_1_1_proj_in", "te_text_model_encoder_layers_0_self_attn_q_proj"]
    tensors = {}
    for layer in layers:
        tensors[f"lora_{layer}.lora_down.weight"] = torch.randn(2, 32, generator=generator)
        tensors[f"lora_{layer}.lora_up.weight"] = torch.randn(32, 2, generator=generator)
        tensors[f"lora_{layer}.alpha"] = torch.tensor(1.0)
    tensors["lora_unet_input_blocks_1_1_proj_in.lora_down.weight"].unsqueeze_(-1).unsqueeze_(-1)
    tensors["lora_unet_input_blocks_1_1_proj_in.lora_up.weight"].unsqueeze_(-1).unsqueeze_(-1)
    save_file(tensors, str(webui.lora_folder / "merged.safetensors"))
    with_network = pixels(webui.txt2img("a red cat<lora:merged:1>").images[0])
    assert np.abs(with_network - base).mean() > 1
    assert webui.digest() != digest
    with host.lease(Needs()) as lease:
        assert webui.digest() == digest
        (made,) = lease.generate([ImageRequest("a red cat<lora:merged:1>", "blurred", 5, 3, 4.0, 64, 64, "Euler")])
        assert webui.digest() == digest
    assert webui.digest() == digest
    assert np.array_equal(pixels(made.image), base)
    assert np.array_equal(pixels(webui.txt2img("a red cat<lora:merged:1>").images[0]), with_network)
    assert np.array_equal(pixels(webui.txt2img().images[0]), base)


def test_a_checkpoint_chosen_meanwhile_waits(host, webui):
    from modules import sd_models, shared

    ours = webui.model
    chosen = next(info for info in sd_models.checkpoint_aliases.values() if info.name_for_extra == "second")
    expected = pixels(webui.txt2img().images[0])
    with host.lease(Needs()) as lease:
        shared.opts.data["sd_model_checkpoint"] = chosen.title
        (made,) = lease.generate([REQUEST])
        assert webui.model is ours
        train_a_little(lease)
    assert shared.opts.sd_model_checkpoint == chosen.title
    assert np.array_equal(pixels(made.image), expected)
    webui.txt2img()
    assert webui.model.sd_checkpoint_info.name_for_extra == "second"
    webui.load("first")


def test_a_model_switched_or_moved_in_spite_of_the_lease_is_noticed(host, webui, monkeypatch):
    from modules import sd_models

    latents, timesteps = noisy()
    lease = host.lease(Needs())
    with lease:
        text = lease.encode_text(captions("a", "b"))
        with monkeypatch.context() as patch:
            patch.setattr(sd_models.model_data, "sd_model", None)
            with pytest.raises(RunConflict, match="changed from first"):
                lease.predict(latents, timesteps, text)
        unet, parameters = webui.model.model.diffusion_model, dict(webui.model.model.diffusion_model.named_parameters())
        originals = {name: parameter.data for name, parameter in parameters.items()}
        with monkeypatch.context() as patch:
            patch.setattr(lease, "device", torch.device("cuda:0"))
            with pytest.raises(RunConflict, match="was moved from cuda:0 to cpu"):
                next(lease.generate([REQUEST]))
        assert all(unet.get_parameter(name).data is not None for name in originals)
    with pytest.raises(RunConflict, match="over"):
        lease.predict(latents, timesteps, text)
    waiting = host.lease(Needs())
    webui.load("second")
    with pytest.raises(RunConflict, match=r"changed from first\S* .* to second"):
        waiting.__enter__()
    webui.load("first")
    with host.lease(Needs()):
        pass


def test_the_lease_waits_for_the_queue_and_gives_it_back(host):
    from modules import call_queue, shared

    entered, release = threading.Event(), threading.Event()

    def run():
        with host.lease(Needs()):
            entered.set()
            release.wait(20)

    call_queue.queue_lock.acquire()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert not entered.wait(0.3)
    finally:
        call_queue.queue_lock.release()
    assert entered.wait(20)
    assert shared.state.job == "lora-trainer"
    assert not call_queue.queue_lock.acquire(False)
    release.set()
    thread.join(20)
    assert call_queue.queue_lock.acquire(False) is not False
    call_queue.queue_lock.release()


def test_an_interrupted_image_is_left_out(host, monkeypatch):
    from modules import sd_hijack, shared

    with host.lease(Needs()) as lease:
        shared.state.interrupt()  # pressed for an image in the queue, before any of ours began
        assert len(list(lease.generate([REQUEST]))) == 1
        pressed = []
        circular = sd_hijack.model_hijack.apply_circular

        def press_once(enable):
            if not pressed:
                pressed.append(True)
                shared.state.interrupt()
            circular(enable)

        monkeypatch.setattr(sd_hijack.model_hijack, "apply_circular", press_once)
        second = ImageRequest("b", seed=2, steps=2, width=64, height=64, sampler="Euler")
        made = list(lease.generate([REQUEST, second]))
        assert [image.request for image in made] == [second]
        assert not shared.state.interrupted
