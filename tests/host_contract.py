"""What every host must satisfy. Each check takes a host, checks its state afterwards, and needs nothing of its kind.

A random model will do, as long as no layer of it is zero.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib_lora_trainer.adapters.targets import Target, choose
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts.api import (
    Conditioning,
    Host,
    ImageRequest,
    Lease,
    MadeImage,
    Needs,
    PictureSize,
    TextRequest,
)

REQUEST = ImageRequest("a red cat, sitting", "blurry", seed=11, steps=3, guidance=4.0, width=64, height=64)
SIZE = PictureSize((64, 64), (0, 0), (64, 64))
LORA = AdapterConfig(method="lora", unet=True, text_encoder=True)
PLAIN = Needs()
HashWeights = Callable[[], str]


class InterruptionError(Exception):
    """Stands for anything that goes wrong during training."""


def text_request(*captions: str, chunks: int = 1, clip_skip: int = 1, emphasis: bool = False) -> TextRequest:
    return TextRequest(captions, clip_skip, chunks, (SIZE,) * len(captions), emphasis)


def noisy(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents (count, 4, 8, 8) and timesteps."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 4, 8, 8, generator=generator), torch.tensor([7, 600, 950, 300][:count])


def first(text: Conditioning, index: int) -> Conditioning:
    vector = None if text.vector is None else text.vector[index : index + 1]
    return Conditioning(text.context[index : index + 1], vector)


def hash_tensors(modules: Sequence[torch.nn.Module]) -> str:
    """Return the SHA-256 over names, dtypes and bits of every tensor of some modules."""
    import hashlib

    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def scaled(targets: Sequence[Target], start: float = 0.0) -> Iterator[dict[str, torch.Tensor]]:
    """Attach to every target, as adapters attach, a factor 1 + s on its output; yield each s by part and path."""
    factors: dict[str, torch.Tensor] = {}
    modules = []
    for target in targets:
        factor = torch.full((1,), start, device=next(target.module.parameters()).device, requires_grad=True)
        factors[f"{target.layer.part} {target.layer.path}"] = factor
        before = vars(target.module).get("forward")

        def forward(inputs, *arguments, module=target.module, factor=factor, before=before, **options):
            if before is None:
                output = type(module).forward(module, inputs, *arguments, **options)
            else:
                output = before(inputs, *arguments, **options)
            return output + (output * factor).to(output.dtype)

        vars(target.module)["forward"] = forward
        modules.append((target.module, before))
    try:
        yield factors
    finally:
        for module, before in modules:
            if before is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = before


def chosen(lease: Lease, *parts: str) -> list[Target]:
    """Return the targets that a LoRA takes, of some parts only if any are named."""
    layers = set(choose([target.layer for target in lease.targets()], LORA, lease.info.family))
    return [
        target
        for target in lease.targets()
        if target.layer in layers and target.layer.part in (parts or target.layer.part)
    ]


def train_a_little(lease: Lease, needs: Needs = PLAIN) -> dict[str, torch.Tensor]:
    """Run one forward and backward pass with factors on every LoRA target; return the factors' gradients."""
    parts = ("unet", *lease.info.text_encoders) if needs.text_encoder_gradient else ("unet",)
    latents, timesteps = noisy()
    with scaled(chosen(lease, *parts)) as factors:
        with torch.set_grad_enabled(needs.text_encoder_gradient):
            text = lease.encode_text(text_request("a red cat", "a dog, running"))
        lease.predict(latents, timesteps, text).square().mean().backward()
        return {
            name: torch.zeros(1) if factor.grad is None else factor.grad.float().cpu()
            for name, factor in factors.items()
        }


def images(lease: Lease, *requests: ImageRequest) -> list[np.ndarray]:
    return [np.asarray(made.image.convert("RGB")).astype(float) for made in lease.generate(requests)]


def random_state() -> tuple:
    devices = [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist(), devices


def check_layers_are_the_targets(host: Host) -> None:
    layers = host.layers()
    with host.lease(PLAIN) as lease:
        targets = lease.targets()
        assert [target.layer for target in targets] == list(layers)
        assert all(ours.module is again.module for ours, again in zip(targets, lease.targets(), strict=True))
        for target in targets:
            layer, module = target.layer, target.module
            if layer.norm:
                assert isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)), layer
                assert layer.inputs == layer.outputs == module.weight.numel()
            else:
                assert isinstance(module, torch.nn.Conv2d if layer.conv else torch.nn.Linear), layer
                assert module.weight.shape[:2] == (layer.outputs, layer.inputs)
            assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters()), layer
    assert len(set(layers)) == len(layers)
    paths = {layer.path for layer in layers if layer.part == "unet"}
    attention = 4 if host.info().family == "sdxl" else 1
    expected = {
        "time_embed.0",
        "input_blocks.0.0",
        "input_blocks.3.0.op",
        f"input_blocks.{attention}.1.transformer_blocks.0.attn1.to_q",
        f"input_blocks.{attention}.1.transformer_blocks.0.attn2.to_out.0",
        f"input_blocks.{attention}.1.transformer_blocks.0.ff.net.0.proj",
        f"input_blocks.{attention}.1.proj_in",
        "middle_block.0.in_layers.2",
        "middle_block.0.emb_layers.1",
        "output_blocks.5.2.conv",
        "output_blocks.0.0.skip_connection",
        "out.2",
    }
    assert expected <= paths
    norms = {layer.path for layer in layers if layer.part == "unet" and layer.norm}
    attention = f"input_blocks.{attention}.1"
    expected = {f"{attention}.norm", *(f"{attention}.transformer_blocks.0.norm{number}" for number in (1, 2, 3))}
    assert expected | {"input_blocks.1.0.in_layers.0", "middle_block.0.out_layers.0", "out.0"} <= norms
    names = [f"self_attn.{name}_proj" for name in "qkv"] + ["self_attn.out_proj", "mlp.fc1", "mlp.fc2"]
    for part in host.info().text_encoders:
        text = {layer.path: layer.norm for layer in layers if layer.part == part}
        for number in (0, 1):
            prefix = f"text_model.encoder.layers.{number}"
            assert not any(text[f"{prefix}.{name}"] for name in names)
            assert all(text[f"{prefix}.layer_norm{norm}"] for norm in (1, 2))
        assert text["text_model.final_layer_norm"]


def check_weights_come_back(host: Host, hash_weights: HashWeights, needs: Needs = PLAIN) -> None:
    """Weights, flags and random state are as before: after a lease that trained, generated, and one that failed."""
    parameters = _own_parameters(host, needs)
    flags = [bool(index % 3) for index, _ in enumerate(parameters)]
    original = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
        before, state = hash_weights(), random_state()
        for fails in (False, True):
            try:
                with host.lease(needs) as lease:
                    assert not any(parameter.requires_grad for parameter in parameters)
                    torch.manual_seed(5)
                    np.random.seed(5)  # noqa: NPY002
                    random.seed(5)
                    assert any(gradient.any() for gradient in train_a_little(lease, needs).values())
                    images(lease, REQUEST)
                    if fails:
                        raise InterruptionError
            except InterruptionError:
                assert fails
            assert [parameter.requires_grad for parameter in parameters] == flags
            assert random_state() == state
            assert hash_weights() == before
    finally:
        for parameter, flag in zip(parameters, original, strict=True):
            parameter.requires_grad_(flag)


def _own_parameters(host: Host, needs: Needs) -> list[torch.nn.Parameter]:
    """Return the parameters that belong to the host: the same ones in every lease."""
    found = []
    for _ in range(2):
        with host.lease(needs) as lease:
            found.append([value for target in lease.targets() for value in target.module.parameters()])
    known = set(map(id, found[0]))
    return list({id(value): value for value in found[1] if id(value) in known}.values())


def check_what_is_left_attached_is_removed(host: Host) -> None:
    """An adapter that is still attached when the lease ends does not stay in the host."""
    with pytest.raises(InterruptionError), host.lease(PLAIN) as lease:
        module = chosen(lease)[0].module
        vars(module)["forward"] = lambda inputs: inputs
        raise InterruptionError
    assert "forward" not in vars(module)


def check_images_are_encoded(host: Host) -> None:
    pixels = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with host.lease(PLAIN) as lease:
        posterior, again = lease.encode_images(pixels), lease.encode_images(pixels)
        single = lease.encode_images(pixels[1:])
    for value in (posterior.mean, posterior.std):
        assert (value.shape, value.dtype, value.device.type) == ((2, 4, 8, 16), torch.float32, "cpu")
        assert torch.isfinite(value).all()
    assert torch.equal(posterior.mean, again.mean)
    assert torch.equal(posterior.std, again.std)
    torch.testing.assert_close(single.mean, posterior.mean[1:], rtol=1e-3, atol=1e-4)
    assert (posterior.std > 0).all()
    assert not torch.allclose(posterior.mean[0], posterior.mean[1], rtol=0.01)


def check_text_is_encoded(host: Host) -> None:
    with host.lease(PLAIN) as lease, torch.no_grad():
        one = lease.encode_text(text_request("a red cat", "a blue dog"))
        two = lease.encode_text(text_request("a red cat", "a blue dog", chunks=2))
        plain = lease.encode_text(text_request("a red cat", "(a red cat:1.4)"))
        assert lease.count_chunks(("", "a, (b)", "cat " * 75, "cat " * 76)) == (1, 1, 1, 2)
    width = one.context.shape[2]
    assert (one.context.shape, one.context.dtype) == ((2, 77, width), torch.float32)
    assert two.context.shape == (2, 154, width)
    # Chunks are encoded apart: the first does not know how many follow.
    torch.testing.assert_close(two.context[:, :77], one.context, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(one.context[0], one.context[1], rtol=0.01)
    assert not torch.allclose(plain.context[0], plain.context[1], rtol=0.01)
    torch.testing.assert_close(plain.context[0], one.context[0], rtol=1e-3, atol=1e-4)
    if host.info().family == "sdxl":
        assert one.vector is not None
        assert one.vector.shape[0] == 2
        assert not torch.allclose(one.vector[0], one.vector[1], rtol=0.01)
    else:
        assert one.vector is None


def check_long_captions_are_cut_at_commas(host: Host) -> None:
    """A chunk that fills up behind a comma ends at the comma; what is beyond the last chunk has no effect."""
    words = ", ".join(["cat"] * 36)  # 71 tokens
    with host.lease(PLAIN) as lease, torch.no_grad():
        assert lease.count_chunks((words, f"{words}, one two three four five")) == (1, 2)
        text = lease.encode_text(
            text_request(f"{words}, one two three four five", f"{words},", "one two three four five", chunks=2)
        )
        cut, full = (
            lease.encode_text(text_request(caption)).context
            for caption in (f"{words}, one two three four five", f"{words},")
        )
    torch.testing.assert_close(text.context[0, :77], text.context[1, :77], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(text.context[0, 77:], text.context[2, :77], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(cut, full, rtol=1e-3, atol=1e-4)


def check_text_gradient(host: Host) -> None:
    """Every layer of the first text-encoder block gets a gradient when asked for, and none without gradients."""
    with host.lease(Needs(text_encoder_gradient=True)) as lease:
        gradients = train_a_little(lease, Needs(text_encoder_gradient=True))
        for part in lease.info.text_encoders:
            layers = [name for name in gradients if name.startswith(f"{part} text_model.encoder.layers.0.")]
            assert len(layers) == 6
            assert all(gradients[name].abs() > 0 for name in layers), gradients
        with torch.no_grad(), scaled(chosen(lease, *lease.info.text_encoders)):
            assert not lease.encode_text(text_request("a")).context.requires_grad


def check_predict(host: Host, tolerance: float = 1e-4) -> None:
    """The output is that of the pictures one by one, and depends on latents, timestep and text."""
    latents, timesteps = noisy()
    with host.lease(PLAIN) as lease, torch.no_grad():
        text = lease.encode_text(text_request("a red cat", "a blue dog"))
        both = lease.predict(latents, timesteps, text)
        assert (both.shape, both.dtype) == (latents.shape, torch.float32)
        singles = [lease.predict(latents[i : i + 1], timesteps[i : i + 1], first(text, i)) for i in range(2)]
        torch.testing.assert_close(torch.cat(singles), both, rtol=tolerance, atol=tolerance)
        for changed in (
            lease.predict(latents.flip(0), timesteps, text),
            lease.predict(latents, timesteps.flip(0), text),
            lease.predict(latents, timesteps, Conditioning(text.context.flip(0), text.vector)),
        ):
            assert (changed - both).abs().mean() > 1e-3


def check_every_layer_gets_a_gradient(host: Host) -> None:
    """Every attention layer of the UNet that a LoRA takes is in the graph of the output."""
    with host.lease(PLAIN) as lease:
        gradients = train_a_little(lease)
        expected = choose(host.layers(), replace(LORA, text_encoder=False), host.info().family)
        assert len(gradients) == len(expected) > 50
    without = [name for name, gradient in gradients.items() if not gradient.abs() > 0]
    assert without == []


def check_gradient_checkpointing(host: Host, tolerance: float = 1e-4) -> None:
    """Recomputing gives the gradients of storing, and leaves nothing behind."""
    results = []
    for needs in (Needs(text_encoder_gradient=True), Needs(text_encoder_gradient=True, gradient_checkpointing=True)):
        with host.lease(needs) as lease:
            results.append(train_a_little(lease, needs))
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=tolerance, atol=tolerance * 1e-3, msg=name)


def check_generation(host: Host) -> None:
    """Images are determined by their request, whatever is made with them."""
    other = replace(REQUEST, seed=12, prompt="a blue dog")
    with host.lease(PLAIN) as lease:
        torch.manual_seed(1)
        state = random_state()
        alone = images(lease, REQUEST)[0]
        again, neighbour = images(lease, REQUEST, other)
        made: list[MadeImage] = list(lease.generate([replace(REQUEST, width=128)]))
        assert torch.is_grad_enabled()
        assert random_state() == state
    assert alone.std() > 1
    assert np.abs(alone - again).mean() < 1.0
    assert np.abs(alone - neighbour).mean() > 2.0
    assert made[0].image.size == (128, 64)
    for expected in (
        "a red cat, sitting\n",
        "Negative prompt: blurry",
        "Steps: 3, Sampler: Euler a",
        "Seed: 11",
        "128x64",
    ):
        assert expected in made[0].infotext


def check_attached_adapters_show_in_images(host: Host) -> None:
    with host.lease(PLAIN) as lease:
        before = images(lease, REQUEST)[0]
        with scaled(chosen(lease, "unet"), start=0.5):
            changed = images(lease, REQUEST)[0]
        after = images(lease, REQUEST)[0]
        with scaled(chosen(lease, *lease.info.text_encoders), start=0.5):
            changed_text = images(lease, REQUEST)[0]
    assert np.abs(changed - before).mean() > 1.0
    assert np.abs(changed_text - before).mean() > 0.1
    assert np.array_equal(before, after)


def check_second_lease_is_refused(host: Host) -> None:
    with host.lease(PLAIN) as lease:
        with pytest.raises(HostRefusal), host.lease(PLAIN):
            pass
        latents, timesteps = noisy(1)
        with torch.no_grad():
            lease.predict(latents, timesteps, lease.encode_text(text_request("still mine")))
    with host.lease(PLAIN):
        pass


def check_schedule(host: Host) -> None:
    with host.lease(PLAIN) as lease:
        values = lease.alphas_cumprod
        assert (values.shape, values.dtype, values.device.type) == ((1000,), torch.float32, "cpu")
    # Products of 1 - beta of Stable Diffusion's schedule (Rombach et al. 2022), first and last.
    assert values[0].item() == pytest.approx(0.99915, abs=1e-5)
    assert values[-1].item() == pytest.approx(0.00466, abs=1e-5)


CHECKS = (
    check_layers_are_the_targets,
    check_what_is_left_attached_is_removed,
    check_images_are_encoded,
    check_text_is_encoded,
    check_long_captions_are_cut_at_commas,
    check_text_gradient,
    check_predict,
    check_every_layer_gets_a_gradient,
    check_gradient_checkpointing,
    check_generation,
    check_attached_adapters_show_in_images,
    check_second_lease_is_refused,
    check_schedule,
)
"""Every check that needs the host alone; `check_weights_come_back` also takes a hash of all weights."""
