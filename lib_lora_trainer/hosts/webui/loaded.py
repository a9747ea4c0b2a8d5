"""What the WebUI has loaded, and whether it can be trained as it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from modules import devices, sd_models, sd_unet, sd_vae, shared

from lib_lora_trainer.adapters.targets import Target, layer_of
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.base.families import Family, Part, Prediction
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.hosts.float8 import is_float8
from lib_lora_trainer.hosts.noise_schedule import ends_in_noise
from lib_lora_trainer.hosts.webui import marks
from lib_lora_trainer.hosts.webui.openclip import LayeredAttention, named_layers

_PREDICTIONS: dict[str, Prediction] = {"eps": "epsilon", "v": "v"}
_OTHER_WEBUIS = {
    "backend.memory_management": "Stable Diffusion WebUI Forge",
    "ldm_patched.modules.model_management": "reForge or an early Forge",
}
_TEXT_ENCODERS: dict[Family, tuple[Part, ...]] = {"sd1": ("te",), "sd2": ("te",), "sdxl": ("te1", "te2")}
_SIZE_KEYS = {"original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple"}


@dataclass(frozen=True)
class Loaded:
    """The loaded model and its parts. wrappers: the WebUI's text encoder wrappers, in the order of their output."""

    model: Any
    info: ModelInfo
    unet: Any
    vae: Any
    wrappers: tuple[Any, ...]

    def layered(self) -> LayeredAttention:
        """Return what makes layers of the attention in open_clip's encoders; without such encoders it is empty."""
        return LayeredAttention(wrapper.wrapped.model for wrapper in self.wrappers if _is_open_clip(wrapper))

    def targets(self, layered: LayeredAttention) -> Iterator[Target]:
        """Yield every Linear, Conv2d and norm of the UNet and the text encoders with its module, in model order."""
        parts: list[tuple[Part, Iterable[tuple[str, torch.nn.Module]]]] = [("unet", self.unet.named_modules())]
        for part, wrapper in zip(self.info.text_encoders, self.wrappers, strict=True):
            parts.append((part, self._text_layers(wrapper, layered)))
        for part, modules in parts:
            for path, module in modules:
                layer = layer_of(part, path, module)
                if layer is not None:
                    yield Target(layer, module)

    def _text_layers(self, wrapper: Any, layered: LayeredAttention) -> Iterable[tuple[str, torch.nn.Module]]:
        if not _is_open_clip(wrapper):
            return wrapper.wrapped.transformer.named_modules()
        encoder = wrapper.wrapped.model
        # SD2 never computes the blocks behind the layer it reads; of SDXL the pooled vector comes from the last one.
        unused = wrapper.wrapped.layer_idx if self.info.family == "sd2" else 0
        return named_layers(encoder, len(encoder.transformer.resblocks) - unused, layered)


def examine() -> Loaded:
    """Return what is loaded, without loading anything. Raises HostRefusal with the reason and the next step."""
    _check_webui()
    model = sd_models.model_data.sd_model
    if model is None:
        raise HostRefusal(
            "No checkpoint is loaded. Choose one in the Stable Diffusion checkpoint list at the top left, wait until "
            "it is loaded (or press Generate once), and try again."
        )
    title = model.sd_checkpoint_info.title
    family = _family(model, title)
    unet = model.model.diffusion_model
    wrappers = _wrappers(model, family, title)
    _check_memory(model, unet, title)
    checkpoint = model.sd_checkpoint_info
    weight = next(unet.parameters())
    marked = marks.read(checkpoint.filename)
    info = ModelInfo(
        host="webui",
        family=family,
        prediction="v" if marked.velocity else _PREDICTIONS[model.parameterization],
        title=title,
        name=checkpoint.name_for_extra,
        file=checkpoint.filename,
        sha256=checkpoint.sha256 or "",
        vae=sd_vae.get_loaded_vae_name() or "",
        text_encoders=_TEXT_ENCODERS[family],
        latent_scale=float(model.scale_factor),
        clip_skip=int(shared.opts.CLIP_stop_at_last_layers),
        dtype=str(weight.dtype).removeprefix("torch."),
        device=str(devices.device),
        zero_terminal_snr=marked.zero_terminal_snr or _ends_in_noise(model),
    )
    return Loaded(model, info, unet, model.first_stage_model, wrappers)


def _check_webui() -> None:
    for package, name in _OTHER_WEBUIS.items():
        if _importable(package):
            raise HostRefusal(f"This is {name}, which cannot be trained in yet. Use Automatic1111's WebUI 1.10.")
    if hasattr(shared, "native"):
        raise HostRefusal("This is SD.Next, which cannot be trained in yet. Use Automatic1111's WebUI 1.10.")


def _importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _family(model: Any, title: str) -> Family:
    if getattr(model, "is_sd3", False):
        raise HostRefusal(f"{title} is a Stable Diffusion 3 model. Load an SD1, SD2 or SDXL checkpoint.")
    if getattr(model, "is_ssd", False):
        raise HostRefusal(f"{title} is an SSD-1B model, whose layers differ from SDXL's. Load an SDXL checkpoint.")
    stem = getattr(model.model.diffusion_model, "input_blocks", [[None]])[0][0]
    if not isinstance(stem, torch.nn.Conv2d):
        raise HostRefusal(f"{title} has an unknown kind of UNet. Load an SD1, SD2 or SDXL checkpoint.")
    key = getattr(model.model, "conditioning_key", "crossattn")
    if stem.in_channels != 4 or key != "crossattn":
        raise HostRefusal(
            f"{title} is an inpainting, editing, depth or unCLIP model ({stem.in_channels} input channels, conditioned "
            f"by {key}). Load the text-to-image checkpoint it comes from; a LoRA trained there also works in this one."
        )
    if model.parameterization not in _PREDICTIONS:
        raise HostRefusal(
            f"{title} predicts {model.parameterization!r}; noise (eps) and velocity (v) can be trained. "
            "Load another checkpoint."
        )
    if model.is_sdxl:
        return "sdxl"
    return "sd2" if model.is_sd2 else "sd1"


def _wrappers(model: Any, family: Family, title: str) -> tuple[Any, ...]:
    if family == "sdxl":
        embedders = model.conditioner.embedders
        texts = tuple(embedder for embedder in embedders if hasattr(embedder, "wrapped"))
        sizes = {embedder.input_key for embedder in embedders if not hasattr(embedder, "wrapped")}
        if len(texts) != 2 or sizes != _SIZE_KEYS:
            raise HostRefusal(f"{title} is an SDXL refiner, which adds detail only. Load an SDXL base model.")
        return texts
    wrapper = model.cond_stage_model
    inner = getattr(wrapper, "wrapped", None)
    known = hasattr(inner, "model") if family == "sd2" else hasattr(getattr(inner, "transformer", None), "text_model")
    if not known:
        raise HostRefusal(
            f"{title} reads text with {type(inner or wrapper).__name__} instead of CLIP. Load an SD1, SD2 or SDXL "
            "checkpoint with its usual text encoder."
        )
    return (wrapper,)


def _is_open_clip(wrapper: Any) -> bool:
    return not hasattr(wrapper.wrapped, "transformer")


def schedule(model: Any) -> torch.Tensor:
    """Return ᾱ of the training schedule, (1000,) float32 on the CPU.

    Generations rewrite `alphas_cumprod` as the options say; the original is what the checkpoint was trained with.
    """
    alphas: torch.Tensor = getattr(model, "alphas_cumprod_original", model.alphas_cumprod)
    return alphas.detach().to(device="cpu", dtype=torch.float32, copy=True)


def _ends_in_noise(model: Any) -> bool:
    # `ztsnr` is set by the versions after 1.10.1, which read the mark themselves. Some files bring the schedule along.
    return bool(getattr(model, "ztsnr", False)) or ends_in_noise(schedule(model))


def kept_in_8_bits(loaded: Loaded) -> bool:
    """Tell whether the WebUI itself keeps the model in 8 bits (Settings, Optimizations, FP8 weight)."""
    return bool(devices.fp8) or any(is_float8(parameter) for parameter in loaded.unet.parameters())


def _check_memory(model: Any, unet: Any, title: str) -> None:
    weight = next(unet.parameters())
    if getattr(model, "lowvram", False) and shared.cmd_opts.lowvram:
        raise HostRefusal(
            "The WebUI runs with --lowvram and swaps the UNet's blocks in and out, so that no gradient can pass. "
            "Start it without --lowvram or with --medvram."
        )
    if devices.force_fp16:
        raise HostRefusal(
            "The WebUI runs with --precision half, which is too coarse to train with. Start it without that option."
        )
    if sd_unet.current_unet is not None or _alternative_unet(model) is not None:
        raise HostRefusal(
            "An alternative UNet (for instance a TensorRT engine) takes the checkpoint's place, and cannot be trained. "
            "Set Settings, Stable Diffusion, SD Unet to None and apply."
        )
    if weight.is_meta or (weight.device.type != devices.device.type and not model.lowvram):
        raise HostRefusal(
            f"{title} was unloaded from {devices.device}. Press Settings, Actions, Load SD checkpoint to VRAM from RAM."
        )


def _alternative_unet(model: Any) -> Any:
    # As sd_unet.get_unet_option decides it, which would load a checkpoint if there were none.
    wanted, name = shared.opts.sd_unet, model.sd_checkpoint_info.model_name
    for option in sd_unet.unet_options:
        if option.label == wanted or (wanted == "Automatic" and option.model_name == name):
            return option
    return None
