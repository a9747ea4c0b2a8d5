"""What every host does with each of `Needs`, with emphasis, and with parts that are idle; as `host_contract`."""

from __future__ import annotations

from dataclasses import replace

import torch

import host_contract
from lib_lora_trainer.hosts.api import Host, Lease, Needs

COMPUTED_OTHERWISE = {
    "fp8_base": Needs(fp8_base=True),
    "channels_last": Needs(channels_last=True),
    "offload": Needs(offload=True),
    "all but compile": Needs(
        text_encoder_gradient=True, gradient_checkpointing=True, fp8_base=True, channels_last=True, offload=True
    ),
}


def predictions(lease: Lease) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a lease predicts for two pictures, and the gradient of its square's mean at the latents."""
    latents, timesteps = host_contract.noisy()
    with torch.no_grad():
        text = lease.encode_text(host_contract.text_request("a red cat", "a dog, running"))
    latents.requires_grad_()
    output = lease.predict(latents, timesteps, text)
    output.square().mean().backward()
    assert latents.grad is not None
    return output.detach(), latents.grad


def unet_weights(lease: Lease) -> list[torch.nn.Parameter]:
    """Return the weights of the UNet's Linear and Conv2d layers."""
    return [t.module.weight for t in lease.targets() if t.layer.part == "unet" and not t.layer.norm]


def check_8_bits(host: Host) -> None:
    """Weights take a quarter of their memory; what is computed changes by the rounding, and only the weights round."""
    with host.lease(Needs()) as lease:
        expected, gradient = predictions(lease)
        original = [(weight, weight.data_ptr(), weight.clone()) for weight in unet_weights(lease)]
        others = [
            parameter.clone()
            for target in lease.targets()
            for name, parameter in target.module.named_parameters()
            if name == "bias" or target.layer.norm or target.layer.part != "unet"
        ]
    with host.lease(Needs(fp8_base=True)) as lease:
        rough, rough_gradient = predictions(lease)
        rounded = unet_weights(lease)
        assert {weight.dtype for weight in rounded} == {torch.float8_e4m3fn}
        assert sum(weight.nbytes for weight in rounded) * 4 == sum(kept.nbytes for _, _, kept in original)
        for weight, (_, _, kept) in zip(rounded, original, strict=True):
            # 3 bits of mantissa: at most 1/16 away, or half of the smallest step, 2⁻⁹, near 0.
            assert ((weight.float() - kept).abs() <= (kept.abs() / 16).clamp(min=2**-10)).all()
        same = [
            parameter
            for target in lease.targets()
            for name, parameter in target.module.named_parameters()
            if name == "bias" or target.layer.norm or target.layer.part != "unet"
        ]
        assert all(torch.equal(now, then) for now, then in zip(same, others, strict=True))
        in_8_bits = {id(weight): weight.detach().float() for weight in rounded}
    for weight, pointer, kept in original:
        assert weight.data_ptr() == pointer
        assert torch.equal(weight, kept)
    for one, other in ((rough, expected), (rough_gradient, gradient)):
        assert 0.9 < torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] < 0.9999
    # The same arithmetic on the rounded weights in float32, by hand.
    with host.lease(Needs()) as lease:
        weights = unet_weights(lease)
        try:
            for weight in weights:
                weight.data = in_8_bits[id(weight)]
            by_hand, gradient_by_hand = predictions(lease)
        finally:
            for weight, (_, _, kept) in zip(weights, original, strict=True):
                weight.data = kept
    torch.testing.assert_close(rough, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rough_gradient, gradient_by_hand, rtol=1e-3, atol=1e-7)


def check_8_bits_keep_no_cast_weights(host: Host) -> None:
    """Between the passes the graph holds the weights in 8 bits, not the copies that were computed with."""
    held: dict[str, int] = {}
    for name, needs in (("plain", Needs()), ("8 bits", Needs(fp8_base=True))):
        with host.lease(needs) as lease:
            latents, timesteps = host_contract.noisy()
            text = lease.encode_text(host_contract.text_request("a", "b"))
            weights = {weight.shape: weight for weight in unet_weights(lease)}
            shapes, kept = set(weights), []

            def note(value: torch.Tensor, shapes=shapes, kept=kept) -> torch.Tensor:
                kept.append(value.nbytes if value.shape in shapes or value.shape[::-1] in shapes else 0)
                return value

            with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
                lease.predict(latents.requires_grad_(), timesteps, text).square().mean().backward()
            held[name] = sum(kept)
    assert 0 < held["8 bits"] < 0.3 * held["plain"]


def check_channels_last(host: Host) -> None:
    """Convolutions lie channels last, compute the same, and lie afterwards as they did."""
    with host.lease(Needs()) as lease:
        expected, gradient = predictions(lease)
        kernels = [t.module.weight for t in lease.targets() if t.layer.part == "unet" and t.layer.kernel > 1]
        before = [(kernel.stride(), kernel.clone()) for kernel in kernels]
    with host.lease(Needs(channels_last=True)) as lease:
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
        assert any(kernel.stride() != strides for kernel, (strides, _) in zip(kernels, before, strict=True))
        for found, wanted in zip(predictions(lease), (expected, gradient), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    for kernel, (strides, values) in zip(kernels, before, strict=True):
        assert kernel.stride() == strides
        assert torch.equal(kernel, values)


def check_compiled(host: Host, needs: Needs) -> None:
    """Compiled blocks compute what they compute otherwise, with the adapters that are attached at the moment."""
    plain = replace(needs, compile=False)
    with host.lease(plain) as lease:
        expected, gradient = predictions(lease)
        gradients = host_contract.train_a_little(lease, plain)
        image = host_contract.images(lease, host_contract.REQUEST)[0]
    with host.lease(needs) as lease:
        forwards = [vars(module).get("forward") for target in lease.targets() for module in target.module.modules()]
        for found, wanted in zip(predictions(lease), (expected, gradient), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        # Compiled without adapters first: those attached now have to be seen, and when they are gone again.
        for name, found in host_contract.train_a_little(lease, needs).items():
            torch.testing.assert_close(found, gradients[name], rtol=1e-2, atol=1e-4, msg=name)
        torch.testing.assert_close(predictions(lease)[0], expected, rtol=1e-3, atol=1e-4)
        again = host_contract.images(lease, host_contract.REQUEST)[0]
        assert abs(again - image).max() <= 2
        assert forwards == [
            vars(module).get("forward") for target in lease.targets() for module in target.module.modules()
        ]


def check_identity(host: Host) -> None:
    """Equal weights have equal identities, of the VAE and of the text encoders; a changed bit changes one of them."""
    with host.lease(Needs()) as lease:
        first = {part: lease.identity(part) for part in ("vae", "text")}
        weight = next(t.module.weight for t in lease.targets() if t.layer.part.startswith("te"))
        kept = weight.detach().clone()
        weight.data.view(-1)[0] += 1
        assert lease.identity("text") == first["text"], "computed once"
    assert len(first["vae"]) == len(first["text"]) == 64
    assert int(first["vae"], 16) != int(first["text"], 16)
    try:
        with host.lease(Needs(gradient_checkpointing=True, channels_last=True)) as lease:
            assert lease.identity("text") != first["text"]
            assert lease.identity("vae") == first["vae"]
    finally:
        weight.data.copy_(kept)
    with host.lease(Needs()) as lease:
        assert lease.identity("text") == first["text"]


def check_emphasis(host: Host) -> None:
    """Weights are read only when asked for, and change the states of their tokens and, by the mean, all the others."""
    with host.lease(Needs()) as lease, torch.no_grad():
        plain = lease.encode_text(host_contract.text_request("a red cat"))
        same = lease.encode_text(host_contract.text_request("a red cat", "a (red:1.0) cat", emphasis=True))
        strong, weak = (
            lease.encode_text(host_contract.text_request(text, emphasis=True))
            for text in ("a (red:1.5) cat", "a [red] cat")
        )
        read = lease.encode_text(host_contract.text_request("a (red:1.5) cat"))
        assert lease.count_chunks(["a BREAK b", "(cat:1.2) " * 70], emphasis=True) == (2, 1)
        assert lease.count_chunks(["a BREAK b", "(cat:1.2) " * 70])[1] > lease.count_chunks(["a " * 150])[0]
        broken = lease.encode_text(host_contract.text_request("a red cat BREAK b", chunks=2, emphasis=True))
    for found in same.context:
        torch.testing.assert_close(found[None], plain.context, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(broken.context[:, :77], plain.context, rtol=1e-4, atol=1e-5)
    for found, factor in ((strong, 1.5), (weak, 1 / 1.1)):
        # Token 2 is "red"; every token carries the factor that restores the mean besides.
        ratio = (found.context / plain.context)[0]
        common = ratio[0].median()
        torch.testing.assert_close(ratio[2].median() / common, torch.tensor(factor), rtol=1e-3, atol=0)
        torch.testing.assert_close(ratio[3].median() / common, torch.tensor(1.0), rtol=1e-3, atol=0)
        if found.vector is not None:
            torch.testing.assert_close(found.vector, plain.vector, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(read.context, strong.context, rtol=0.01)


def check_idle_parts_are_as_good_as_others(host: Host) -> None:
    """Whatever is said to be idle computes what it computes otherwise."""
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = []
    for parts in ((), ("vae",), ("vae", "text")):
        with host.lease(Needs(offload=True)) as lease, torch.no_grad():
            lease.idle(*parts)
            image = torch.from_numpy(host_contract.images(lease, host_contract.REQUEST)[0])
            text = lease.encode_text(host_contract.text_request("a")).context
            found.append((image, text, lease.encode_images(pixels).mean))
            lease.idle()
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def check_norms_get_a_gradient(host: Host) -> None:
    """What sits on a norm of the UNet or of a text encoder is in the graph of the output."""
    needs = Needs(text_encoder_gradient=True)
    latents, timesteps = host_contract.noisy()
    with host.lease(needs) as lease:
        norms = [target for target in lease.targets() if target.layer.norm]
        with host_contract.scaled(norms) as factors:
            text = lease.encode_text(host_contract.text_request("a red cat", "b"))
            lease.predict(latents, timesteps, text).square().mean().backward()
        without = [name for name, factor in factors.items() if factor.grad is None or not factor.grad.abs() > 0]
        unread = {  # SDXL reads its first encoder before the last layer and without the final norm
            "te1 text_model.final_layer_norm",
            *(f"te1 text_model.encoder.layers.{_last(lease, 'te1')}.layer_norm{number}" for number in (1, 2)),
        }
    assert set(without) <= unread
    assert len(factors) > 60


def _last(lease: Lease, part: str) -> int:
    paths = [target.layer.path for target in lease.targets() if target.layer.part == part]
    return max((int(path.split(".")[3]) for path in paths if ".layers." in path), default=0)


CHECKS = (
    check_8_bits,
    check_8_bits_keep_no_cast_weights,
    check_channels_last,
    check_identity,
    check_emphasis,
    check_idle_parts_are_as_good_as_others,
    check_norms_get_a_gradient,
)
"""Every check that needs the host alone; `check_compiled` also takes what to compile with."""
