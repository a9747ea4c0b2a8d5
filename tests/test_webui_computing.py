"""How the lease inside the WebUI computes: 8 bits, channels last, compiled, with parts away; and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import host_contract
import host_needs
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.hosts import compiled, float8
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.hosts.offload import Offload
from webui_steps import REQUEST, captions, noisy, pixels, train_a_little

pytest_plugins = ("webui_session",)


def test_what_torch_cannot_do_is_refused(host, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(float8, "reason_against", lambda: "torch 2.0 has no 8-bit numbers")
        with pytest.raises(HostRefusal, match="no 8-bit numbers.*update torch"):
            host.lease(Needs(fp8_base=True))
        host.lease(Needs())
    monkeypatch.setattr(compiled, "reason_against", lambda kind, float8: f"no compiler on {kind}")
    with pytest.raises(HostRefusal, match='no compiler on cpu.*Switch "Compile" off'):
        host.lease(Needs(compile=True))
    host.lease(Needs())


def test_idle_parts_leave_and_images_bring_them_back(host, webui, monkeypatch):
    """The moves to another device, recorded: this machine has only one."""
    from lib_lora_trainer.hosts.webui import lease as lease_module

    owners = {id(t): "vae" for t in webui.model.first_stage_model.parameters()}
    owners |= {id(t): "text" for t in webui.model.cond_stage_model.parameters()}
    moves: list[tuple[str, str]] = []

    def move(tensor, device):
        entry = (owners.get(id(tensor), "buffer"), device.type)
        if entry[0] != "buffer" and entry not in moves[-2:]:
            moves.append(entry)

    class Recording(Offload):
        def __init__(self, parts, active, moved):
            assert not active, "on the CPU nothing moves"
            super().__init__(parts, True, moved, move)

        def __enter__(self):
            super().__enter__()
            for part, homes in self._homes.items():
                self._homes[part] = [(module, name, torch.device("cuda")) for module, name, _ in homes]
            return self

    monkeypatch.setattr(lease_module, "Offload", Recording)
    away, back = "cpu", "cuda"
    with host.lease(Needs(offload=True)) as lease:
        lease.idle("vae", "text")
        assert sorted(moves) == [("text", away), ("vae", away)]
        moves.clear()
        latents, timesteps = noisy(1)
        text = lease.encode_text(captions("a"))
        assert moves == [("text", back)]
        lease.predict(latents, timesteps, text)
        assert moves == [("text", back)]
        lease.idle("vae", "text")
        moves.clear()
        list(lease.generate([REQUEST]))
        assert sorted(moves[:2]) == [("text", back), ("vae", back)]
        assert sorted(moves[2:]) == [("text", away), ("vae", away)]
        moves.clear()
        lease.encode_images(torch.zeros(1, 3, 64, 64))
        assert moves == [("vae", back)]
    assert moves == [("vae", back), ("text", back)]


@pytest.mark.webui
def test_a_model_that_the_webui_keeps_in_8_bits_is_trained_on_as_it_is(host, webui, monkeypatch):
    from modules import devices, sd_models, shared

    monkeypatch.setitem(shared.opts.data, "fp8_storage", "Enable")
    try:
        sd_models.reload_model_weights()
        assert devices.fp8
        with pytest.raises(HostRefusal, match="8-bit base model"):
            host.lease(Needs(compute_dtype=torch.bfloat16))
        with pytest.raises(HostRefusal, match="half precision"):
            host.lease(Needs(fp8_base=True))
        model, before = webui.model, webui.digest()
        expected = pixels(webui.txt2img().images[0])
        with host.lease(Needs(compute_dtype=torch.bfloat16, fp8_base=True, gradient_checkpointing=True)) as lease:
            assert train_a_little(lease).abs().sum() > 0
            (made,) = lease.generate([REQUEST])
        assert webui.model is model, "the WebUI was not made to load it again"
        assert webui.digest() == before
        assert np.abs(pixels(made.image) - expected).max() <= 2
    finally:
        shared.opts.data["fp8_storage"] = "Disable"
        sd_models.reload_model_weights()
    assert not devices.fp8


@pytest.mark.parametrize("channels_last", [False, True])
def test_reduced_precision_and_8_bits_together(host, channels_last):
    needs = Needs(compute_dtype=torch.bfloat16, fp8_base=True, channels_last=channels_last)
    with host.lease(Needs()) as lease:
        expected, gradient = host_needs.predictions(lease)
    with host.lease(needs) as lease:
        found, rough = host_needs.predictions(lease)
    for one, other in ((found, expected), (rough, gradient)):
        assert 0.9 < torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] < 0.9999


COMPILED = {
    "compile": Needs(compile=True),
    "compile and all others but 8 bits": Needs(
        text_encoder_gradient=True, gradient_checkpointing=True, channels_last=True, compile=True, offload=True
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("needs", COMPILED.values(), ids=COMPILED)
def test_compiled(host, webui, monkeypatch, needs):
    """A residual and a transformer block: a whole UNet takes the C++ compiler many minutes on one core."""
    from lib_lora_trainer.hosts.webui import lease as lease_module

    every = lease_module.unet_blocks
    monkeypatch.setattr(lease_module, "unet_blocks", lambda unet: every(unet)[:2])
    host_needs.check_compiled(host, needs)
    host_contract.check_weights_come_back(host, webui.digest, needs)


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_blocks_are_traced_without_a_break(host, webui, monkeypatch, count):
    """A residual and a transformer block, and all of them: traced, and run as traced, with adapters attached."""
    import torch._dynamo as dynamo

    from lib_lora_trainer.hosts.webui import lease as lease_module

    compile_, every = torch.compile, lease_module.unet_blocks
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="aot_eager"))
    monkeypatch.setattr(compiled, "reason_against", lambda kind, float8: "")
    monkeypatch.setattr(lease_module, "unet_blocks", lambda unet: every(unet)[:count])
    needs = Needs(compile=True, gradient_checkpointing=True, fp8_base=True, channels_last=True)
    with host.lease(Needs(fp8_base=True)) as lease:
        expected = host_contract.train_a_little(lease)
    dynamo.reset()
    dynamo.utils.counters.clear()
    before = webui.digest()
    with host.lease(needs) as lease:
        found = host_contract.train_a_little(lease, needs)
        assert webui.digest() != before
    assert webui.digest() == before
    assert not dynamo.utils.counters["graph_break"]
    assert dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
