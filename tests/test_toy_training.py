"""Training on the real toy checkpoint: gradients everywhere, the same losses however they are computed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import Target, choose
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.hosts.api import ImageRequest, Needs, PictureSize
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.train.batches import Loaded
from lib_lora_trainer.train.loop import example_losses

SIZE = PictureSize((128, 128), (0, 0), (128, 128))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    return StandaloneHost(CHECKPOINT, tmp_path_factory.mktemp("adapters"), device="cpu")


def batch() -> Loaded:
    generator = torch.Generator().manual_seed(4)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=generator)
    captions = ("mikori, 1girl, smile", "mikori, 1girl, red dress, forest")
    return Loaded(latents, noise, torch.tensor([100, 700]), captions, (SIZE, SIZE))


def attached(targets: list[Target], config: AdapterConfig, perturb: float) -> Attachment:
    chosen = set(choose([target.layer for target in targets], config))
    adapters = {t.layer: methods.build(t, config, seed=1) for t in targets if t.layer in chosen}
    generator = torch.Generator().manual_seed(2)
    for adapter in adapters.values():
        adapter.lora_up.weight.data = perturb * torch.randn(adapter.lora_up.weight.shape, generator=generator)
    return Attachment(targets, adapters)


@pytest.fixture
def lease(host: StandaloneHost) -> Iterator[object]:
    with host.lease(Needs(text_encoder_gradient=True)) as lease:
        yield lease


@pytest.mark.parametrize("method", ["lora", "locon"])
def test_every_parameter_of_the_adapter_gets_a_gradient(lease: object, method: str) -> None:
    config = AdapterConfig(method=method, rank=4, alpha=4.0, conv_rank=4, conv_alpha=4.0)
    run = RunConfig(adapter=config)
    for perturb in (0.0, 0.05):
        with attached(lease.targets(), config, perturb) as attachment:
            example_losses(lease, batch(), run).mean().backward()
        silent = []
        for layer, adapter in attachment.adapters.items():
            gradients = {name: parameter.grad for name, parameter in adapter.named_parameters()}
            assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
            # The first factor of a new adapter has none: the second one is zero.
            silent += [layer.path for name, g in gradients.items() if not g.abs().sum() and (perturb or "up" in name)]
        assert silent == []
        # One convolution more than SD1.5, whose two lowest levels are equally wide.
        assert len(attachment.adapters) == {"lora": 192 + 18, "locon": 279 + 18}[method]


def test_a_new_adapter_leaves_the_loss_and_a_perturbed_one_changes_it(lease: object) -> None:
    config = AdapterConfig(rank=4, alpha=4.0)
    with torch.no_grad():
        plain = example_losses(lease, batch(), RunConfig(adapter=config))
        with attached(lease.targets(), config, 0.0):
            assert torch.equal(plain, example_losses(lease, batch(), RunConfig(adapter=config)))
        with attached(lease.targets(), config, 0.05):
            assert (plain - example_losses(lease, batch(), RunConfig(adapter=config))).abs().min() > 1e-4


def test_checkpointing_and_bf16_give_the_gradients_of_fp32(host: StandaloneHost) -> None:
    config = AdapterConfig(rank=4, alpha=4.0)
    found = []
    for needs in (
        Needs(text_encoder_gradient=True),
        Needs(text_encoder_gradient=True, gradient_checkpointing=True),
        Needs(torch.bfloat16, text_encoder_gradient=True),
    ):
        with host.lease(needs) as lease, attached(lease.targets(), config, 0.05) as attachment:
            example_losses(lease, batch(), RunConfig(adapter=config)).mean().backward()
        found.append(torch.cat([p.grad.flatten() for a in attachment.adapters.values() for p in a.parameters()]))
    exact, recomputed, half = found
    torch.testing.assert_close(recomputed, exact, rtol=1e-4, atol=1e-7)
    assert torch.nn.functional.cosine_similarity(half, exact, dim=0) > 0.97


def test_a_saved_file_makes_the_image_of_the_adapter_in_memory(lease: object) -> None:
    request = [ImageRequest("mikori", seed=3, steps=4, guidance=5.0, width=128, height=128)]
    with attached(lease.targets(), AdapterConfig(rank=4, alpha=4.0), 0.05) as attachment:
        with_memory = next(iter(lease.generate(request))).image
        tensors = files.to_tensors(attachment.adapters, "sd1", torch.float32)
    without = next(iter(lease.generate(request))).image
    with Attachment(lease.targets(), files.from_tensors(tensors, lease.targets(), "sd1")):
        with_file = next(iter(lease.generate(request))).image
    assert with_memory.tobytes() == with_file.tobytes() != without.tobytes()
