"""What the standalone host computes, against other implementations of the same formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import host_contract
import small_models
from lib_lora_trainer.hosts.api import ImageRequest, Needs, PictureSize, TextRequest
from lib_lora_trainer.hosts.chunks import split
from lib_lora_trainer.hosts.standalone import StandaloneHost, words
from lib_lora_trainer.hosts.standalone.sampling import SAMPLERS, make_scheduler, sample
from lib_lora_trainer.hosts.standalone.schedule import sampling_betas
from lib_lora_trainer.hosts.tokenizer_files import write_clip_tokenizer

FAMILIES = ("sd1", "sd2", "sdxl")
LONG = ", ".join(f"tag number {index}" for index in range(40))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> dict[str, StandaloneHost]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        family: StandaloneHost(small_models.write_checkpoint(family, folder / f"{family}.safetensors"), folder, "cpu")
        for family in FAMILIES
    }


def tensors_of(host: StandaloneHost, prefix: str) -> dict[str, torch.Tensor]:
    tensors = load_file(host.info().file)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def ldm_unet(family: str) -> torch.nn.Module:
    """Return ldm's UNetModel; for SDXL with the embedding of the vector and the depths that sgm's version adds."""
    openaimodel = pytest.importorskip("ldm.modules.diffusionmodules.openaimodel")
    from ldm.modules.attention import SpatialTransformer

    parameters = small_models.unet_parameters(family)
    vector = parameters.pop("adm_in_channels", None)
    if vector is not None:
        depth = max(parameters["transformer_depth"])
        context = [parameters["context_dim"]] * depth
        parameters |= {"num_classes": "continuous", "transformer_depth": depth, "context_dim": context}
    unet = openaimodel.UNetModel(**parameters).eval()
    if vector is not None:
        time = 4 * parameters["model_channels"]
        layers = torch.nn.Linear(vector, time), torch.nn.SiLU(), torch.nn.Linear(time, time)
        unet.label_emb = torch.nn.Sequential(torch.nn.Sequential(*layers))
        shallow = [*unet.input_blocks[4:6], *unet.output_blocks[3:6]]
        for transformer in (module for block in shallow for module in block if isinstance(module, SpatialTransformer)):
            transformer.transformer_blocks = transformer.transformer_blocks[:1]
    return unet


@pytest.mark.parametrize("family", FAMILIES)
def test_unet_computes_what_ldm_computes(hosts, family):
    reference = ldm_unet(family)
    reference.load_state_dict(tensors_of(hosts[family], "model.diffusion_model."), strict=True)
    latents, timesteps = host_contract.noisy()
    with hosts[family].lease(Needs()) as lease, torch.no_grad():
        text = lease.encode_text(host_contract.text_request("a red cat", "a blue dog"))
        found = lease.predict(latents, timesteps, text)
        context = text.context if text.vector is None else [text.context] * 2  # one per transformer block
        expected = reference(latents, timesteps, context=context, y=text.vector)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_vae_computes_what_ldm_computes(hosts):
    model = pytest.importorskip("ldm.modules.diffusionmodules.model")
    host = hosts["sd1"]
    parts = {
        "encoder": model.Encoder(**small_models.vae_parameters()),
        "decoder": model.Decoder(**small_models.vae_parameters()),
        "quant_conv": torch.nn.Conv2d(8, 8, 1),
        "post_quant_conv": torch.nn.Conv2d(4, 4, 1),
    }
    for name, part in parts.items():
        part.eval().load_state_dict(tensors_of(host, f"first_stage_model.{name}."), strict=True)
    pixels = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with host.lease(Needs()) as lease, torch.no_grad():
        posterior = lease.encode_images(pixels)
        mean, log_variance = parts["quant_conv"](parts["encoder"](pixels)).chunk(2, 1)
        torch.testing.assert_close(posterior.mean, 0.2 * mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(posterior.std, 0.2 * torch.exp(0.5 * log_variance.clamp(-30, 20)), rtol=1e-4, atol=0)
        image = torch.from_numpy(host_contract.np.asarray(lease.decode(posterior.mean[0])).copy()).permute(2, 0, 1)
        expected = parts["decoder"](parts["post_quant_conv"](mean[:1]))[0]
    assert expected.std() > 0.1
    assert (image - ((expected.clamp(-1, 1) + 1) * 127.5)).abs().max() < 0.51


def token_numbers(text: str, padding: int) -> list[int]:
    tokens = words.load_tokenizer()(text)
    return [49406, *tokens, 49407, *([padding] * (75 - len(tokens)))]


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_sd1_text_is_transformers_hidden_state(hosts, clip_skip):
    from transformers import CLIPTextConfig, CLIPTextModel

    reference = CLIPTextModel(
        CLIPTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4)
    ).eval()
    reference.load_state_dict(tensors_of(hosts["sd1"], "cond_stage_model.transformer."), strict=False)
    numbers = torch.tensor([token_numbers("a red cat", 49407)])
    with hosts["sd1"].lease(Needs()) as lease, torch.no_grad():
        found = lease.encode_text(TextRequest(("a red cat",), clip_skip, 1, ())).context
        output = reference(numbers, output_hidden_states=True)
        expected = reference.text_model.final_layer_norm(output.hidden_states[-clip_skip])
        if clip_skip == 1:
            torch.testing.assert_close(expected, output.last_hidden_state)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def open_clip_states(tensors: dict[str, torch.Tensor], numbers: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """Return the output of every layer of open_clip's text tower, the embeddings first: pre-norm blocks, fused qkv."""
    width = tensors["positional_embedding"].shape[1]
    mask = torch.full((77, 77), -math.inf).triu(1)

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return torch.nn.functional.layer_norm(values, (width,), weight, bias)

    states = [tensors["token_embedding.weight"][numbers] + tensors["positional_embedding"]]
    for index in range(3):
        block = f"transformer.resblocks.{index}"
        attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        prefix = f"{block}.attn."
        attention.load_state_dict({n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)})
        inner = norm(f"{block}.ln_1", states[-1])
        values = states[-1] + attention(inner, inner, inner, need_weights=False, attn_mask=mask)[0]
        wide = norm(f"{block}.ln_2", values) @ tensors[f"{block}.mlp.c_fc.weight"].T + tensors[f"{block}.mlp.c_fc.bias"]
        narrow = torch.nn.functional.gelu(wide) @ tensors[f"{block}.mlp.c_proj.weight"].T
        states.append(values + narrow + tensors[f"{block}.mlp.c_proj.bias"])
    return [*states, norm("ln_final", states[-1]), norm("ln_final", states[-2])]


def test_sd2_text_is_open_clips_penultimate_layer(hosts):
    tensors = tensors_of(hosts["sd2"], "cond_stage_model.model.")
    numbers = torch.tensor([token_numbers("a red cat", 0)])
    with hosts["sd2"].lease(Needs()) as lease, torch.no_grad():
        found = lease.encode_text(TextRequest(("a red cat",), 1, 1, ())).context
        expected = open_clip_states(tensors, numbers, 4)[-1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_sdxl_text_is_both_encoders_penultimate_layers(hosts):
    from transformers import CLIPTextConfig, CLIPTextModel

    host = hosts["sdxl"]
    first = CLIPTextModel(
        CLIPTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4)
    ).eval()
    first.load_state_dict(tensors_of(host, "conditioner.embedders.0.transformer."), strict=False)
    tensors = tensors_of(host, "conditioner.embedders.1.model.")
    size = PictureSize((768, 512), (16, 32), (1024, 896))
    with host.lease(Needs()) as lease, torch.no_grad():
        found = lease.encode_text(TextRequest(("a red cat", LONG), 1, 2, (size, size)))
        output = first(torch.tensor([token_numbers("a red cat", 49407)]), output_hidden_states=True)
        states = open_clip_states(tensors, torch.tensor([token_numbers("a red cat", 0)]), 6)
    torch.testing.assert_close(found.context[:1, :77, :64], output.hidden_states[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.context[:1, :77, 64:], states[2], rtol=0, atol=1e-5)
    pooled = states[-2][:, 4] @ tensors["text_projection"]  # the end token of "a red cat" is the fifth
    torch.testing.assert_close(found.vector[:1, :80], pooled, rtol=0, atol=1e-5)
    for place, number in enumerate((768, 512, 16, 32, 1024, 896)):
        features = found.vector[0, 80 + 256 * place : 80 + 256 * (place + 1)]
        for index in (0, 5, 127):
            angle = number * 10000 ** (-index / 128)
            assert features[index].item() == pytest.approx(math.cos(angle), abs=1e-3)
            assert features[128 + index].item() == pytest.approx(math.sin(angle), abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_emphasis_weights_tokens_and_restores_the_mean(hosts, family):
    """By hand: states · weights · (mean before / mean after), of each encoder and each chunk by itself."""
    request = TextRequest(("a red cat, (LONG:0.7)".replace("LONG", LONG),), 1, 3, (host_contract.SIZE,))
    weighted = "(a:1.2) red [cat], (LONG:0.7)".replace("LONG", LONG)
    plain = replace(request, captions=("a red cat, LONG".replace("LONG", LONG),))
    tokens = words.load_tokenizer()
    count = len(tokens(plain.captions[0]))
    weights = [1.2, 1.0, 1 / 1.1, 1.0, *[0.7] * (count - 4)]
    with hosts[family].lease(Needs()) as lease, torch.no_grad():
        before = lease.encode_text(plain)
        found = lease.encode_text(replace(request, captions=(weighted,), emphasis=True))
        lengths = [len(chunk) for chunk in split(tokens(plain.captions[0]), words.comma())]
        assert lease.count_chunks((weighted,), emphasis=True) == (len(lengths),)
    assert len(lengths) == 3
    pieces, start = [], 0
    for number, length in enumerate(lengths):
        row = torch.ones(77)
        row[1 : 1 + length] = torch.tensor(weights[start : start + length])
        start += length
        for columns in (slice(0, 64), slice(64, None)):  # SDXL's encoders stand side by side; others have the first
            states = before.context[0, 77 * number : 77 * (number + 1), columns]
            scaled = states * row[:, None]
            pieces.append((number, columns, scaled * (states.mean() / scaled.mean())))
    for number, columns, expected in pieces:
        part = found.context[0, 77 * number : 77 * (number + 1), columns]
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    assert (found.context - before.context).abs().max() > 0.1
    if family == "sdxl":
        torch.testing.assert_close(found.vector, before.vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "1girl, solo, long hair, (smile:1.2), :d, don't",
        "Ünïcödé naïve 東京 😀 ",
        "a\n b\t\tc!!! 3.14 name_(series)",
        "",
        LONG,
    ],
)
def test_tokenizer_is_transformers_tokenizer(tmp_path_factory, text):
    from transformers import CLIPTokenizerFast

    folder = tmp_path_factory.getbasetemp() / "tokenizer"
    if not folder.exists():
        write_clip_tokenizer(folder)
    reference = CLIPTokenizerFast.from_pretrained(folder)
    assert words.load_tokenizer()(text) == reference(text, add_special_tokens=False, truncation=False).input_ids


def test_known_tokens():
    assert words.load_tokenizer()("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert words.comma() == 267


def test_chunks():
    """The cuts of the WebUI 1.10.1 (its `tokenize_line` gives these lengths)."""
    comma, word = 267, 320

    def lengths(tokens):
        chunks = split(tokens, comma)
        assert [token for chunk in chunks for token in chunk] == tokens
        return [len(chunk) for chunk in chunks]

    assert lengths([]) == [0]
    assert lengths([word] * 75) == [75]
    assert lengths([word] * 76) == [75, 1]
    assert lengths([word] * 60 + [comma] + [word] * 20) == [61, 20]
    assert lengths([word] * 54 + [comma] + [word] * 21) == [75, 1]  # 21 tokens back is too far
    assert lengths([word] * 55 + [comma] + [word] * 20) == [56, 20]
    assert lengths([word] * 60 + [comma] + [word] * 14 + [comma, word]) == [75, 2]  # a comma itself moves nothing
    assert lengths(([word] * 9 + [comma]) * 20) == [70, 70, 60]


@pytest.mark.parametrize("prediction", ["epsilon", "v", "v with zero terminal SNR"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_reach_the_distribution(sampler, prediction):
    """For normally distributed latents the best prediction is known in closed form; samplers must give them back."""
    mean, deviation = 0.7, 0.4
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    betas = sampling_betas(torch.cumprod(1 - betas, 0), prediction.endswith("SNR"))
    alphas, prediction = torch.cumprod(1 - betas, 0), prediction.split()[0]

    def predict(latents, timestep):
        below = int(timestep)
        share = float(timestep) - below
        ratios = ((1 - alphas) / alphas).sqrt().log()
        sigma = torch.exp((1 - share) * ratios[below] + share * ratios[min(below + 1, 999)])
        alpha = 1 / (1 + sigma**2)
        excess = latents - alpha.sqrt() * mean
        noise = (1 - alpha).sqrt() * excess / (alpha * deviation**2 + 1 - alpha)
        clean = mean + alpha.sqrt() * deviation**2 * excess / (alpha * deviation**2 + 1 - alpha)
        output = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        return output.float()

    request = ImageRequest("", seed=3, steps=200, width=256, height=256, sampler=sampler)
    scheduler = make_scheduler(sampler, betas, prediction)
    latents = sample([request, replace(request, seed=4)], scheduler, predict, torch.device("cpu"))
    assert latents.shape == (2, 4, 32, 32)
    assert latents.mean().item() == pytest.approx(mean, abs=0.05)
    assert latents.std().item() == pytest.approx(deviation, rel=0.1)
    alone = sample([replace(request, seed=4)], make_scheduler(sampler, betas, prediction), predict, torch.device("cpu"))
    torch.testing.assert_close(alone[0], latents[1], rtol=0, atol=1e-5)


def test_the_schedule_for_sampling(hosts):
    """The WebUI's numbers for "Zero Terminal SNR": first value as before, last one 4.9e-8; else the schedule itself."""
    with hosts["sd1"].lease(Needs()) as lease:
        alphas = lease.alphas_cumprod.double()
    plain, stretched = (torch.cumprod(1 - sampling_betas(alphas, zero), 0) for zero in (False, True))
    torch.testing.assert_close(plain, alphas)
    assert stretched[-1].item() == pytest.approx(4.8973451890853435e-08, rel=1e-5)
    roots = alphas.sqrt()
    by_hand = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    torch.testing.assert_close(stretched[:-1], by_hand[:-1], rtol=1e-5, atol=1e-9)


def test_prompts_and_guidance(hosts):
    request = replace(host_contract.REQUEST, sampler="DDIM")
    with hosts["sd1"].lease(Needs()) as lease:
        plain, tagged, unguided, other_negative, guided_negative, long = host_contract.images(
            lease,
            request,
            replace(request, prompt=f"<lora:name:0.8>{request.prompt}"),
            replace(request, guidance=1.0),
            replace(request, guidance=1.0, negative="dog"),
            replace(request, negative="dog"),
            replace(request, prompt=LONG),
        )
        weighted, escaped, same = host_contract.images(
            lease,
            replace(request, prompt="a (red:1.6) cat, sitting"),
            replace(request, prompt=r"a \(red\) cat, sitting"),
            replace(request, prompt="a (red:1.0) cat, sitting"),
        )
        assert abs(weighted - plain).mean() > 0.5, "emphasis is read in prompts, as in the WebUI's"
        assert abs(escaped - weighted).mean() > 0.5
        assert abs(same - plain).mean() < 1
        assert abs(plain - tagged).mean() < 1
        assert abs(plain - unguided).mean() > 1
        assert abs(unguided - other_negative).mean() < 1
        assert abs(plain - guided_negative).mean() > 1
        assert abs(plain - long).mean() > 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_works_on_every_family(hosts, family, sampler):
    with hosts[family].lease(Needs()) as lease:
        (image,) = host_contract.images(lease, replace(host_contract.REQUEST, sampler=sampler, steps=2))
    assert image.std() > 1


def test_infotext_is_the_webuis(hosts):
    request = ImageRequest("a, b", "c", 7, 2, 6.5, 64, 128, "DPM++ 2M Karras", 2)
    info = hosts["sd1"].info()
    with hosts["sd1"].lease(Needs()) as lease:
        made, without = lease.generate([request, replace(request, negative="", clip_skip=1, sampler="Euler a")])
    assert made.infotext == (
        "a, b\nNegative prompt: c\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 7, "
        f"Size: 64x128, Model hash: {info.sha256[:10]}, Model: sd1, Clip skip: 2, RNG: CPU"
    )
    assert without.infotext.startswith("a, b\nSteps: 2, Sampler: Euler a, Schedule type: Automatic, CFG scale: 6.5")
    assert "Clip skip" not in without.infotext
    assert made.request == request
    assert made.image.size == (64, 128)
