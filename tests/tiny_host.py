"""A host whose model is a few layers with ldm's names: fast enough to train whole runs in a test, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from lib_lora_trainer.adapters.targets import Layer, Target, layer_of
from lib_lora_trainer.hosts.api import Conditioning, ImageRequest, MadeImage, ModelInfo, Needs, Posterior, TextRequest

WIDTH = 16


class Attention(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, torch.nn.Linear(WIDTH, WIDTH, bias=False))
        self.to_out = torch.nn.ModuleList([torch.nn.Linear(WIDTH, WIDTH)])

    def forward(self, inputs: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.to_q(inputs) @ self.to_k(context).transpose(1, 2) / WIDTH**0.5, dim=-1)
        return self.to_out[0](weights @ self.to_v(context))


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(), Attention()

    def forward(self, inputs: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        inputs = inputs + self.attn1(inputs, inputs)
        return inputs + self.attn2(inputs, context)


class Transformer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = torch.nn.ModuleList([Block()])


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_layers = torch.nn.ModuleList(
            [torch.nn.Identity(), torch.nn.SiLU(), torch.nn.Conv2d(4, WIDTH, 3, padding=1)]
        )


class Unet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_blocks = torch.nn.ModuleList(
            [torch.nn.Identity(), torch.nn.ModuleList([Residual(), Transformer()])]
        )
        self.out = torch.nn.Conv2d(WIDTH, 4, 1)

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        residual, transformer = self.input_blocks[1]
        hidden = residual.in_layers[2](latents) + (timesteps / 1000).view(-1, 1, 1, 1)
        tokens = hidden.flatten(2).transpose(1, 2)
        tokens = transformer.transformer_blocks[0](tokens, context)
        return self.out(tokens.transpose(1, 2).reshape(hidden.shape))


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = torch.nn.Embedding(256, WIDTH)
        self.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"mlp": Mlp()})])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.token_embedding(ids)
        mlp = self.layers[0]["mlp"]
        return hidden + mlp.fc2(torch.tanh(mlp.fc1(hidden)))


class TinyLease:
    def __init__(self, host: TinyHost, needs: Needs) -> None:
        self.info, self._host, self.needs = host.info(), host, needs
        self.device = torch.device("cpu")
        self.alphas_cumprod = torch.linspace(0.9999, 0.005, 1000)

    def __enter__(self) -> TinyLease:
        self._host.leases += 1
        self._rng = torch.get_rng_state()
        return self

    def __exit__(self, *_: object) -> None:
        self._host.leases -= 1
        torch.set_rng_state(self._rng)

    def targets(self) -> Sequence[Target]:
        found = []
        for part, prefix, model in (("unet", "", self._host.unet), ("te", "text_model.encoder.", self._host.encoder)):
            for path, module in model.named_modules():
                layer = layer_of(part, prefix + path, module)
                if layer is not None:
                    found.append(Target(layer, module))
        return found

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        mean = torch.nn.functional.avg_pool2d(pixels, 8)
        mean = torch.cat([mean, mean.mean(1, keepdim=True)], dim=1)
        return Posterior(mean, torch.full_like(mean, 0.1))

    def identity(self, part: str) -> str:
        return {"vae": "a" * 64, "text": "b" * 64}[part]

    def idle(self, *parts: str) -> None:
        self.idle_parts = parts

    def count_chunks(self, captions: Sequence[str], emphasis: bool = False) -> tuple[int, ...]:
        return tuple(1 for _ in captions)

    def encode_text(self, request: TextRequest) -> Conditioning:
        rows = [(caption.encode() + b" " * 77)[:77] for caption in request.captions]
        return Conditioning(self._host.encoder(torch.tensor([list(row) for row in rows])))

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        return self._host.unet(latents, timesteps, text.context)

    def generate(
        self, requests: Sequence[ImageRequest], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[MadeImage]:
        for request in requests:
            if not go_on():
                return
            generator = torch.Generator().manual_seed(request.seed)
            latents = torch.randn(1, 4, 4, 4, generator=generator)
            with torch.no_grad():
                text = self.encode_text(TextRequest((request.prompt,), 1, 1, ()))
                value = self.predict(latents, torch.tensor([500]), text).mean().item()
            shade = int(abs(value) * 1000) % 256
            yield MadeImage(Image.new("RGB", (request.width, request.height), (shade,) * 3), "infotext", request)


class TinyHost:
    def __init__(self, adapters: Path) -> None:
        torch.manual_seed(7)
        self.unet, self.encoder = Unet().requires_grad_(False), Encoder().requires_grad_(False)
        self.adapters, self.leases, self.announced = adapters, 0, []

    def info(self) -> ModelInfo:
        return ModelInfo(
            "tiny", "sd1", "epsilon", "tiny.safetensors [0]", "tiny", "", "f" * 64, "", ("te",), 1.0, 1, "float32", "cpu"
        )

    def layers(self) -> Sequence[Layer]:
        return [target.layer for target in TinyLease(self, Needs()).targets()]

    def lease(self, needs: Needs) -> TinyLease:
        return TinyLease(self, needs)

    def samplers(self) -> tuple[str, ...]:
        return ("Euler a",)

    def adapter_folder(self) -> str:
        return str(self.adapters)

    def preset_files(self, name: str) -> tuple[Path, ...]:
        return tuple(self.adapters.glob(f"*/scripts/{name}"))  # as of another extension

    def announce(self, path: str) -> None:
        self.announced.append(path)
