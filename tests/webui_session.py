"""A WebUI for a whole test session: the stand-in in `fake_webui`, or the real one when SD_WEBUI_DIR names it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora_trainer.hosts import tokenizer_files

REAL = os.environ.get("SD_WEBUI_DIR", "")
FAKE = Path(__file__).parent / "fake_webui"
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 4,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": 32,
    "use_checkpoint": False,
    "legacy": False,
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "projection_dim": 32,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}


def describe(folder: Path) -> dict[str, Any]:
    """Return the yaml that the WebUI reads beside a checkpoint, as nested dictionaries."""
    return {
        "model": {
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "linear_start": 0.00085,
                "linear_end": 0.0120,
                "timesteps": 1000,
                "first_stage_key": "jpg",
                "cond_stage_key": "txt",
                "conditioning_key": "crossattn",
                "scale_factor": 0.18215,
                "use_ema": False,
                "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": UNET},
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {"embed_dim": 4, "ddconfig": VAE, "lossconfig": {"target": "torch.nn.Identity"}},
                },
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                    "params": {"version": str(folder / "clip")},
                },
            },
        }
    }


def write_checkpoint(folder: Path, name: str, seed: int) -> None:
    """Write a small SD1 checkpoint of random weights, its yaml and its text encoder's configuration and tokenizer.

    Everything is random, also what ldm starts at zero: a UNet whose last layer is zero predicts zero whatever it reads.
    """
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    clip = folder / "clip"
    tokenizer_files.write_clip_tokenizer(clip)
    (clip / "config.json").write_text(json.dumps(TEXT), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(json.dumps(describe(folder)), encoding="utf-8")
    parts = {
        "model.diffusion_model": UNetModel(**UNET),
        "first_stage_model.encoder": Encoder(**VAE),
        "first_stage_model.decoder": Decoder(**VAE),
        "first_stage_model.quant_conv": torch.nn.Conv2d(8, 8, 1),
        "first_stage_model.post_quant_conv": torch.nn.Conv2d(4, 4, 1),
        "cond_stage_model.transformer": CLIPTextModel(CLIPTextConfig.from_pretrained(clip)),
    }
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for prefix, module in parts.items():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                value = random_like(key, value, generator)  # noqa: PLW2901
            tensors[f"{prefix}.{key}"] = value.contiguous()
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    tensors["alphas_cumprod"] = torch.cumprod(1 - betas, 0).float()
    save_file(tensors, str(folder / f"{name}.safetensors"))


def random_like(key: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return random weights of a size that keeps a network's activations near 1; norms stay near the identity."""
    drawn = torch.randn(value.shape, generator=generator)
    if value.dim() == 1:
        return 0.05 * drawn + (1.0 if key.endswith("weight") else 0.0)
    return drawn * (0.05 if "embedding" in key else value[0].numel() ** -0.5)


@dataclass(frozen=True)
class Session:
    """A WebUI with the checkpoints `first` (loaded) and `second` in its folder."""

    folder: Path
    lora_folder: Path
    params_txt: Path

    @property
    def model(self) -> Any:
        """The loaded model."""
        from modules import sd_models

        return sd_models.model_data.sd_model

    def load(self, name: str) -> Any:
        """Load a checkpoint as the dropdown does, and return the model."""
        from modules import sd_models, shared

        info = next(info for info in sd_models.checkpoint_aliases.values() if info.name_for_extra == name)
        shared.opts.data["sd_model_checkpoint"] = info.title
        return sd_models.reload_model_weights()

    def txt2img(self, prompt: str = "a red cat", **options: Any) -> Any:
        """Return what txt2img makes of a prompt: `images` and `infotexts`."""
        from modules import processing

        settings = {
            "negative_prompt": "blurred",
            "seed": 5,
            "steps": 3,
            "cfg_scale": 4.0,
            "width": 64,
            "height": 64,
            "sampler_name": "Euler",
            "scheduler": "Automatic",
            **options,
        }
        work = processing.StableDiffusionProcessingTxt2Img(
            sd_model=self.model, prompt=prompt, do_not_save_samples=True, do_not_save_grid=True, **settings
        )
        with closing(work):
            return processing.process_images(work)

    def digest(self) -> str:
        """Return a hash of every tensor of the model: names, types and values."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)} {value.device}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())  # numpy knows neither bfloat16 nor 8 bits
        return digest.hexdigest()


def _scope(fixture_name: str, config: pytest.Config) -> str:
    # A process can begin the real WebUI once; the stand-in changes torch's classes and should not outstay its tests.
    return "session" if REAL else "module"


@pytest.fixture(scope=_scope)
def webui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Yield the WebUI of this session, with nothing loaded from elsewhere than its own temporary folder."""
    folder = tmp_path_factory.mktemp("webui")
    torch.set_num_threads(1)
    if REAL:
        yield begin_real(Path(REAL), folder)
        return
    pytest.importorskip("ldm", reason="needs stable-diffusion-sdkit")
    before = set(sys.modules)
    sys.path.insert(0, str(FAKE))
    import ldm.modules.attention
    from ldm.modules.diffusionmodules import openaimodel

    patched = [(ldm.modules.attention.CrossAttention, "forward"), (openaimodel, "timestep_embedding")]
    originals = [(owner, name, getattr(owner, name)) for owner, name in patched]
    networks = None
    try:
        session, networks = begin_fake(folder)
        yield session
    finally:
        if networks is not None:
            networks.undo()
        for owner, name, original in originals:
            setattr(owner, name, original)
        sys.path.remove(str(FAKE))
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("modules", "networks") or name.startswith("lib_lora_trainer.hosts.webui"):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                # `from package import module` finds the attribute first, should the package be older than this session.
                if parent in sys.modules:
                    vars(sys.modules[parent]).pop(child, None)
                package, _, module = name.rpartition(".")
                if hasattr(sys.modules.get(package), module):  # a package that stays would hand it out again
                    delattr(sys.modules[package], module)


@pytest.fixture
def host(webui: Session) -> Any:
    """Return a host in the WebUI with the first checkpoint loaded."""
    from lib_lora_trainer.hosts.webui.host import WebuiHost

    if webui.model.sd_checkpoint_info.name_for_extra != "first" or next(webui.model.parameters()).is_meta:
        webui.load("first")
    return WebuiHost()


def begin_fake(folder: Path) -> tuple[Session, Any]:
    """Load the first checkpoint into the stand-in; return the session and the module that patches torch's layers."""
    for seed, name in enumerate(("first", "second")):
        write_checkpoint(folder, name, seed)
    import networks
    from modules import sd_models, shared

    shared.data_path = folder
    shared.cmd_opts.lora_dir = str(folder / "Lora")
    Path(shared.cmd_opts.lora_dir).mkdir()
    networks.patch()
    sd_models.list_models(folder)
    sd_models.load_model(sd_models.checkpoint_aliases["first.safetensors"])
    return Session(folder, folder / "Lora", folder / "params.txt"), networks


def begin_real(webui_folder: Path, folder: Path) -> Session:
    """Initialise the WebUI in this process without a server, its data in `folder`, the first checkpoint loaded.

    SD_WEBUI_ARGS adds options to its command line, for instance --medvram.
    """
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    settings = folder / "config.json"
    settings.write_text(json.dumps({"samples_save": False, "grid_save": False}), encoding="utf-8")
    arguments = (
        "launch.py --use-cpu all --no-half --do-not-download-clip --no-download-sd-model --skip-torch-cuda-test "
        f"--skip-version-check --skip-load-model-at-start --data-dir {folder} {os.environ.get('SD_WEBUI_ARGS', '')}"
    )
    before = (sys.argv, Path.cwd(), signal.getsignal(signal.SIGINT), os.environ.pop("COMMANDLINE_ARGS", None))
    sys.argv = arguments.split()
    sys.path.insert(0, str(webui_folder))
    os.chdir(webui_folder)
    try:
        from modules import initialize

        initialize.imports()
        initialize.initialize()
        from modules import script_callbacks, sd_hijack, sd_models, shared

        script_callbacks.before_ui_callback()  # registers `<lora:…>`
        for seed, name in enumerate(("first", "second")):
            write_checkpoint(checkpoints, name, seed)
        sd_models.list_models()
        first = next(info for info in sd_models.checkpoint_aliases.values() if info.name_for_extra == "first")
        shared.opts.data["sd_model_checkpoint"] = first.title
        assert shared.sd_model is not None  # loads it
        if sd_hijack.current_optimizer is None:
            sd_hijack.apply_optimizations()
        Path(shared.cmd_opts.lora_dir).mkdir(parents=True, exist_ok=True)
        return Session(checkpoints, Path(shared.cmd_opts.lora_dir), folder / "params.txt")
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        signal.signal(signal.SIGINT, before[2])  # the WebUI's own handler ends the process
