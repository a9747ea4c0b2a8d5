"""SD2 and SDXL in the real WebUI: the host computes what the WebUI computes, and its loader reads what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import host_contract
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import choose
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts.api import ImageRequest, Needs, PictureSize, TextRequest

if TYPE_CHECKING:
    from webui_session import Session

pytest_plugins = ("webui_session",)
pytestmark = pytest.mark.webui
REQUEST = ImageRequest("a red cat", "blurred", 5, 3, 4.0, 64, 64, "Euler", 1)
LOCON = AdapterConfig(method="locon", rank=4, alpha=3.0, conv_rank=3, conv_alpha=1.5)
TEXT_CHECKS = (
    host_contract.check_text_gradient,
    host_contract.check_gradient_checkpointing,
    host_contract.check_attached_adapters_show_in_images,
)


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


@pytest.mark.parametrize("check", host_contract.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_of_hosts(host, family, check):
    if check in TEXT_CHECKS and family == "sd2":
        with pytest.raises(HostRefusal, match="OpenCLIP"):
            host.lease(Needs(text_encoder_gradient=True))
    else:
        check(host)


def test_what_is_said_and_computed_is_the_webuis(host, webui, family):
    from modules import prompt_parser

    info = host.info()
    assert (info.family, info.prediction) == {"sd2": ("sd2", "v"), "sdxl": ("sdxl", "epsilon")}[family]
    assert info.text_encoders == {"sd2": (), "sdxl": ("te1",)}[family]
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


def test_weights_come_back(host, webui, family):
    needs = Needs(text_encoder_gradient=family == "sdxl", gradient_checkpointing=True)
    host_contract.check_weights_come_back(host, webui.digest, needs)


def test_the_file_gives_the_image_of_training(host, webui, family, monkeypatch):
    import networks
    from modules import shared

    monkeypatch.setitem(shared.opts.data, "live_previews_enable", False)  # txt2img would download a model for them
    base = np.asarray(webui.txt2img().images[0]).astype(int)
    generator = torch.Generator().manual_seed(17)
    with host.lease(Needs()) as lease:
        targets = lease.targets()
        wanted = set(choose([target.layer for target in targets], LOCON))
        adapters = {t.layer: methods.build(t, LOCON, seed=5).eval() for t in targets if t.layer in wanted}
        for adapter in adapters.values():
            for parameter in adapter.parameters():
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.12
        with Attachment(targets, adapters):
            (made,) = lease.generate([REQUEST])
    name = f"image-{family}"
    save_file(files.to_tensors(adapters, family, torch.float32), str(webui.lora_folder / f"{name}.safetensors"))
    from_file = np.asarray(webui.txt2img(f"a red cat<lora:{name}:1>").images[0]).astype(int)
    assert len(networks.loaded_networks[0].modules) == len(adapters)
    assert np.abs(from_file - base).mean() > 3
    assert np.abs(from_file - np.asarray(made.image).astype(int)).max() <= 2
    webui.txt2img()
