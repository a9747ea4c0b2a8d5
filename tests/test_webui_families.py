"""SD2 and SDXL in the real WebUI: the host computes what the WebUI computes, and its loader reads what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import host_contract
import host_needs
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import assign
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts.api import ImageRequest, Needs, PictureSize, TextRequest

if TYPE_CHECKING:
    from webui_session import Session

pytest_plugins = ("webui_session",)
pytestmark = pytest.mark.webui
REQUEST = ImageRequest("a red cat", "blurred", 5, 3, 4.0, 64, 64, "Euler", 1)
LOCON = AdapterConfig(method="locon", rank=4, alpha=3.0, conv_rank=3, conv_alpha=1.5)


@pytest.fixture(params=["sd2", "sdxl"])
def family(request, webui: Session):
    from modules import sd_models

    import webui_families
    import webui_session

    path = webui.folder / f"{request.param}.safetensors"
    if not path.exists():
        webui_families.register_open_clip(webui.folder)
        webui_families.write_family(webui.folder, request.param, webui_session.TEXT)
        sd_models.list_models()
    webui.load(request.param)
    yield request.param
    webui.load("first")


@pytest.fixture
def host(family):
    from lib_lora_trainer.hosts.webui.host import WebuiHost

    return WebuiHost()


@pytest.mark.parametrize("check", [*host_contract.CHECKS, *host_needs.CHECKS], ids=lambda check: check.__name__)
def test_the_contract_of_hosts(host, family, check):
    check(host)


def test_what_is_said_and_computed_is_the_webuis(host, webui, family):
    from modules import prompt_parser

    info = host.info()
    assert (info.family, info.prediction) == {"sd2": ("sd2", "v"), "sdxl": ("sdxl", "epsilon")}[family]
    assert info.text_encoders == {"sd2": ("te",), "sdxl": ("te1", "te2")}[family]
    assert not info.zero_terminal_snr
    texts = ["a red cat", "word, " * 50]
    latents, timesteps = host_contract.noisy()
    size = PictureSize((768, 640), (0, 0), (768, 640))
    with torch.no_grad():
        conditions = webui.model.get_learned_conditioning(prompt_parser.SdConditioning(texts, width=640, height=768))
        vector = conditions["vector"] if family == "sdxl" else None
        context = conditions["crossattn"] if family == "sdxl" else conditions
        given = {"crossattn": context, "vector": vector} if family == "sdxl" else {"c_crossattn": [context]}
        expected = webui.model.apply_model(latents, timesteps, dict(given))
        with host.lease(Needs()) as lease:
            text = lease.encode_text(TextRequest(tuple(texts), 1, 2, (size, size)))
            output = lease.predict(latents, timesteps, text)
    torch.testing.assert_close(text.context, context, rtol=1e-4, atol=1e-5)
    if family == "sdxl":
        torch.testing.assert_close(text.vector, vector, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("needs", [host_needs.COMPUTED_OTHERWISE["all but compile"]], ids=["all but compile"])
def test_weights_come_back(host, webui, family, needs):
    host_contract.check_weights_come_back(host, webui.digest, needs)


def random_adapters(targets, family: str, size: float) -> dict:
    """Return LoCon adapters for every layer that takes one, all of whose values are random."""
    wanted = assign([target.layer for target in targets], LOCON, family)
    generator = torch.Generator().manual_seed(17)
    adapters = {}
    for target in targets:
        if target.layer in wanted:
            adapter = methods.build(target, wanted[target.layer], LOCON, seed=5).eval()
            for parameter in adapter.parameters():
                parameter.data = torch.randn(parameter.shape, generator=generator) * size
            adapters[target.layer] = adapter
    return adapters


@pytest.mark.parametrize("parts", ["every part", "text encoders alone"])
def test_the_file_gives_the_image_of_training(host, webui, family, monkeypatch, parts):
    import networks
    from modules import shared

    monkeypatch.setitem(shared.opts.data, "live_previews_enable", False)  # txt2img would download a model for them
    base = np.asarray(webui.txt2img().images[0]).astype(int)
    with host.lease(Needs()) as lease:
        targets = lease.targets()
        adapters = random_adapters(targets, family, size=0.12)
        if parts == "text encoders alone":
            adapters = {layer: adapter for layer, adapter in adapters.items() if layer.part != "unet"}
        with Attachment(targets, adapters):
            (made,) = lease.generate([REQUEST])
    of_open_clip = [layer for layer in adapters if layer.part == {"sd2": "te", "sdxl": "te2"}[family]]
    # SD2 never computes the last of its three blocks.
    assert len(of_open_clip) == 6 * {"sd2": 2, "sdxl": 3}[family]
    name = f"image-{family}-{parts.replace(' ', '-')}"
    save_file(files.to_tensors(adapters, family, torch.float32), str(webui.lora_folder / f"{name}.safetensors"))
    from_file = np.asarray(webui.txt2img(f"a red cat<lora:{name}:1>").images[0]).astype(int)
    assert len(networks.loaded_networks[0].modules) == len(adapters)
    assert np.abs(from_file - base).mean() > (3 if parts == "every part" else 0.5)
    assert np.abs(from_file - np.asarray(made.image).astype(int)).max() <= 2
    webui.txt2img()


@pytest.mark.parametrize("chunks", [1, 3])
def test_emphasis_is_the_webuis(host, webui, family, chunks):
    """Up to 225 tokens; each caption by itself, as the WebUI reads prompts."""
    from modules import prompt_parser

    size = PictureSize((512, 512), (0, 0), (512, 512))
    for caption in ("a (red:1.4) cat, ((sitting)) [down]", "(" + "long words, " * 35 * chunks + "the end:0.7), a"):
        with torch.no_grad():
            given = prompt_parser.SdConditioning([caption], width=512, height=512)
            expected = webui.model.get_learned_conditioning(given)
            with host.lease(Needs()) as lease:
                found = lease.encode_text(TextRequest((caption,), 1, max(1, chunks), (size,), emphasis=True))
        context = expected["crossattn"] if family == "sdxl" else expected
        length = min(context.shape[1], found.context.shape[1])
        torch.testing.assert_close(found.context[:, :length], context[:, :length], rtol=1e-4, atol=1e-5)
        if family == "sdxl":
            torch.testing.assert_close(found.vector, expected["vector"], rtol=1e-4, atol=1e-5)


def test_the_marks_of_velocity_and_of_zero_terminal_snr_are_read(host, webui, family, monkeypatch):
    from modules import sd_models, shared

    monkeypatch.setitem(shared.opts.data, "live_previews_enable", False)
    path = webui.folder / f"{family}.safetensors"
    marked = webui.folder / f"{family}-marked.safetensors"
    save_file({**load_file(str(path)), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, str(marked))
    marked.with_suffix(".yaml").write_text(path.with_suffix(".yaml").read_text(encoding="utf-8"), encoding="utf-8")
    sd_models.list_models()
    plain = np.asarray(webui.txt2img().images[0]).astype(int)
    webui.load(marked.stem)
    model = webui.model
    says = model.parameterization
    info = host.info()
    assert (info.prediction, info.zero_terminal_snr) == ("v", True)
    with host.lease(Needs()) as lease:
        assert lease.alphas_cumprod[-1] > 0.004, "as the checkpoint has it; training stretches it"
        (made,) = lease.generate([REQUEST])
    assert model.parameterization == says
    assert "Noise Schedule: Zero Terminal SNR" in made.infotext
    assert np.abs(np.asarray(made.image).astype(int) - plain).mean() > 1
    monkeypatch.setitem(shared.opts.data, "sd_noise_schedule", "Zero Terminal SNR")
    monkeypatch.setattr(model, "parameterization", "v")
    expected = webui.txt2img()
    assert np.array_equal(np.asarray(expected.images[0]), np.asarray(made.image))
    assert made.infotext == expected.infotexts[0]
