"""Training on the real toy checkpoint: gradients everywhere, the same losses however they are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import Target, assign
from lib_lora_trainer.config.adapter import METHODS, AdapterConfig
from lib_lora_trainer.config.loss import LossConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.diffusion import noise, schedule
from lib_lora_trainer.hosts.api import ImageRequest, Lease, Needs, PictureSize
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.train.batches import Loaded
from lib_lora_trainer.train.run import Model
from lib_lora_trainer.train.step import example_losses

SIZE = PictureSize((128, 128), (0, 0), (128, 128))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    return StandaloneHost(CHECKPOINT, tmp_path_factory.mktemp("adapters"), device="cpu")


def batch() -> Loaded:
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    captions = ("mikori, 1girl, smile", "mikori, 1girl, red dress, forest")
    never = torch.tensor([False, False])
    return Loaded(latents, None, captions, (SIZE, SIZE), torch.ones(2), never, (3, 4), ("a.png", "b.png"))


def losses(lease: Lease, attachment: Attachment, config: RunConfig, loaded: Loaded | None = None) -> torch.Tensor:
    model = Model(lease, attachment, lease.alphas_cumprod, None)
    return example_losses(model, config, loaded or batch(), learning=True)


def attached(targets: Sequence[Target], config: AdapterConfig, perturb: float) -> Attachment:
    assigned = assign([target.layer for target in targets], config, "sd1")
    adapters = {
        t.layer: methods.build(t, assigned[t.layer], config, seed=1)
        for t in targets
        if t.layer in assigned and methods.supports(t.layer, assigned[t.layer].method)
    }
    generator = torch.Generator().manual_seed(2)
    for adapter in adapters.values():
        for parameter in adapter.parameters():
            parameter.data += perturb * torch.randn(parameter.shape, generator=generator)
    return Attachment(targets, adapters)


@pytest.fixture
def lease(host: StandaloneHost) -> Iterator[Lease]:
    with host.lease(Needs(text_encoder_gradient=True)) as lease:
        yield lease


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_of_the_adapter_gets_a_gradient(lease: Lease, method: str) -> None:
    config = AdapterConfig(method=method, rank=4, alpha=4.0, conv_rank=4, conv_alpha=4.0, norms=method == "full")
    with attached(lease.targets(), config, 0.02) as attachment:
        losses(lease, attachment, RunConfig(adapter=config)).mean().backward()
    silent = []
    for layer, adapter in attachment.adapters.items():
        for name, parameter in adapter.named_parameters():
            if method != "dylora":  # one block of its rank learns in each step
                assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
            if parameter.grad is None or not parameter.grad.abs().sum():
                silent.append((layer.path, name))
    assert method == "dylora" or silent == []
    if method in ("lora", "locon"):  # one convolution more than SD1.5, whose two lowest levels are equally wide
        assert len(attachment.adapters) == {"lora": 192 + 18, "locon": 279 + 18}[method]


def test_a_new_adapter_leaves_the_loss_and_a_perturbed_one_changes_it(lease: Lease) -> None:
    config = AdapterConfig(rank=4, alpha=4.0)
    run = RunConfig(adapter=config)
    with torch.no_grad():
        plain = losses(lease, Attachment((), {}), run)
        with attached(lease.targets(), config, 0.0) as attachment:
            assert torch.equal(plain, losses(lease, attachment, run))
        with attached(lease.targets(), config, 0.05) as attachment:
            assert (plain - losses(lease, attachment, run)).abs().min() > 1e-4


def test_prior_preservation_compares_with_the_model_without_adapters(lease: Lease) -> None:
    config = AdapterConfig(rank=4, alpha=4.0)
    run = RunConfig(adapter=config)
    both = replace(batch(), preserved=torch.tensor([True, False]))
    with torch.no_grad(), attached(lease.targets(), config, 0.05) as attachment:
        mixed, plain = losses(lease, attachment, run, both), losses(lease, attachment, run)
        with attachment.at_strength(0.0):
            without = losses(lease, attachment, run, both)
    assert mixed[1] == plain[1] and mixed[0] != plain[0]
    assert without[0] == 0 and mixed[0] > 0  # nothing learned yet: nothing to give back


def test_snr_weights_follow_the_rescaled_schedule(lease: Lease) -> None:
    """A zero-terminal schedule changes the noise and the weights together."""
    run = RunConfig(adapter=AdapterConfig(), loss=LossConfig(min_snr_gamma=5.0))
    rescaled = schedule.rescale_zero_terminal_snr(lease.alphas_cumprod)
    nothing = Attachment((), {})
    timesteps = noise.timesteps(1000, run.noise, run.training.seed, batch().positions)
    plain = replace(run, loss=LossConfig())
    with torch.no_grad():
        for alphas in (lease.alphas_cumprod, rescaled):
            model = Model(lease, nothing, alphas, None)
            weighted, bare = (example_losses(model, each, batch(), learning=False) for each in (run, plain))
            snr = alphas[timesteps] / (1 - alphas[timesteps])
            torch.testing.assert_close(weighted / bare, (5.0 / snr).clamp(max=1.0), rtol=1e-4, atol=1e-6)


def test_checkpointing_and_bf16_give_the_gradients_of_fp32(host: StandaloneHost) -> None:
    config = AdapterConfig(rank=4, alpha=4.0)
    found = []
    for needs in (
        Needs(text_encoder_gradient=True),
        Needs(text_encoder_gradient=True, gradient_checkpointing=True),
        Needs(torch.bfloat16, text_encoder_gradient=True),
    ):
        with host.lease(needs) as lease, attached(lease.targets(), config, 0.05) as attachment:
            losses(lease, attachment, RunConfig(adapter=config)).mean().backward()
        found.append(torch.cat([p.grad.flatten() for a in attachment.adapters.values() for p in a.parameters()]))
    exact, recomputed, half = found
    torch.testing.assert_close(recomputed, exact, rtol=1e-4, atol=1e-7)
    assert torch.nn.functional.cosine_similarity(half, exact, dim=0) > 0.97


def test_a_saved_file_makes_the_image_of_the_adapter_in_memory(lease: Lease) -> None:
    request = [ImageRequest("mikori", seed=3, steps=4, guidance=5.0, width=128, height=128)]
    with attached(lease.targets(), AdapterConfig(rank=4, alpha=4.0), 0.05) as attachment:
        with_memory = next(iter(lease.generate(request))).image
        tensors = files.to_tensors(attachment.adapters, "sd1", torch.float32)
    without = next(iter(lease.generate(request))).image
    with Attachment(lease.targets(), files.from_tensors(tensors, lease.targets(), "sd1")):
        with_file = next(iter(lease.generate(request))).image
    assert with_memory.tobytes() == with_file.tobytes() != without.tobytes()
