import json
from pathlib import Path
from types import SimpleNamespace

import torch
from ldm.modules.diffusionmodules import openaimodel
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from modules import devices, sd_hijack, shared
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib_lora_trainer.base.files import sha256

checkpoint_aliases = {}
model_data = SimpleNamespace(sd_model=None)


class CheckpointInfo:
    def __init__(self, path):
        self.filename, self.name_for_extra, self.model_name = str(path), path.stem, path.stem
        self.sha256 = sha256(path)
        self.shorthash = self.sha256[:10]
        self.title = f"{path.name} [{self.shorthash}]"


class AutoencoderKL(torch.nn.Module):
    def __init__(self, embed_dim, ddconfig, **_):
        super().__init__()
        self.encoder, self.decoder = Encoder(**ddconfig), Decoder(**ddconfig)
        self.quant_conv = torch.nn.Conv2d(2 * ddconfig["z_channels"], 2 * embed_dim, 1)
        self.post_quant_conv = torch.nn.Conv2d(embed_dim, ddconfig["z_channels"], 1)

    def encode(self, x):
        return DiagonalGaussianDistribution(self.quant_conv(self.encoder(x)))

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


class FrozenCLIPEmbedder(torch.nn.Module):
    def __init__(self, version):
        super().__init__()
        self.tokenizer = CLIPTokenizer.from_pretrained(version)
        self.transformer = CLIPTextModel(CLIPTextConfig.from_pretrained(version)).requires_grad_(False)


class DiffusionWrapper(torch.nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.diffusion_model, self.conditioning_key = unet, "crossattn"


class LatentDiffusion(torch.nn.Module):
    parameterization, scale_factor, lowvram = "eps", 0.18215, False
    is_sd1, is_sd2, is_sdxl, is_ssd, is_sd3 = True, False, False, False, False

    def __init__(self, params):
        super().__init__()
        unet = openaimodel.UNetModel(**params["unet_config"]["params"])
        self.model = DiffusionWrapper(unet)
        self.first_stage_model = AutoencoderKL(**params["first_stage_config"]["params"]).requires_grad_(False)
        self.cond_stage_model = FrozenCLIPEmbedder(params["cond_stage_config"]["params"]["version"])
        betas = torch.linspace(params["linear_start"] ** 0.5, params["linear_end"] ** 0.5, 1000, dtype=torch.float64)
        self.register_buffer("alphas_cumprod", torch.cumprod(1 - betas**2, 0).float())
        self.alphas_cumprod_original = self.alphas_cumprod

    def apply_model(self, x, t, cond):
        return self.model.diffusion_model(x, t, context=torch.cat(cond["c_crossattn"], 1))

    def get_learned_conditioning(self, texts):
        return self.cond_stage_model(texts)

    @torch.no_grad()
    def decode_first_stage(self, z):
        return self.first_stage_model.decode(z / self.scale_factor)


def _cast_timestep_embedding(*arguments, original=openaimodel.timestep_embedding, **options):
    return original(*arguments, **options).to(dtype=devices.dtype_unet)


openaimodel.timestep_embedding = _cast_timestep_embedding


def list_models(folder):
    for path in sorted(folder.glob("*.safetensors")):
        info = CheckpointInfo(path)
        checkpoint_aliases[info.title] = checkpoint_aliases[path.name] = info


def load_model(info):
    if model_data.sd_model is not None:
        model_data.sd_model.to(device="meta")
    description = json.loads(Path(info.filename).with_suffix(".yaml").read_text(encoding="utf-8"))
    model = LatentDiffusion(description["model"]["params"])
    missing = model.load_state_dict(load_file(info.filename), strict=False).missing_keys
    assert not [key for key in missing if "position_ids" not in key], missing
    model.sd_checkpoint_info, model.sd_model_checkpoint = info, info.filename
    sd_hijack.model_hijack.hijack(model.eval())
    shared.opts.data["sd_model_checkpoint"] = info.title
    model_data.sd_model = model
    import networks

    networks.assign_network_names_to_compvis_modules(model)
    return model


def reload_model_weights():
    info = checkpoint_aliases.get(shared.opts.sd_model_checkpoint) or next(iter(checkpoint_aliases.values()))
    if model_data.sd_model.sd_model_checkpoint != info.filename:
        load_model(info)
    return model_data.sd_model


def apply_token_merging(sd_model, ratio):
    sd_model.applied_token_merged_ratio = ratio
