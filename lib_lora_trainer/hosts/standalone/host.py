"""A model from a checkpoint file, without a WebUI."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from lib_lora_trainer.adapters.targets import Layer, Target, layer_of
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.base.families import Family, Part, Prediction
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.hosts import compiled, float8
from lib_lora_trainer.hosts.api import ModelInfo, NamedUpscaler, Needs
from lib_lora_trainer.hosts.standalone import schedule, weights
from lib_lora_trainer.hosts.standalone.checkpoint import CheckpointFile, read_checkpoint
from lib_lora_trainer.hosts.standalone.layout import Layout, infer_layout
from lib_lora_trainer.hosts.standalone.lease import LoadedModel, StandaloneLease
from lib_lora_trainer.hosts.standalone.sampling import SAMPLERS

logger = logging.getLogger(__name__)

_LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.LayerNorm, torch.nn.GroupNorm)
_SECTIONS = ("time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out")


class StandaloneHost:
    """The `Host` of one .safetensors checkpoint: SD1.x, SD2.x or SDXL with ldm's tensor names.

    checkpoint: read when first needed; a yaml of the same stem beside it says what the weights do not (number of heads,
    prediction type, latent scale). adapters: folder for adapter files. device: "auto", "cpu", "cuda" or "cuda:N".
    dtype: of the weights in memory; None is float16 on CUDA, float32 elsewhere.
    """

    def __init__(
        self, checkpoint: Path, adapters: Path, device: str = "auto", dtype: torch.dtype | None = None
    ) -> None:
        self._path = Path(checkpoint)
        self._adapters = Path(adapters)
        self._device = _choose_device(device)
        self._dtype = dtype or (torch.float16 if self._device.type == "cuda" else torch.float32)
        self._lease_lock = threading.Lock()
        self._read_lock = threading.RLock()
        self._opened: tuple[CheckpointFile, Layout, weights.Modules] | None = None
        self._info: ModelInfo | None = None
        self._model: LoadedModel | None = None

    def info(self) -> ModelInfo:
        """Return what is loaded; the first call hashes the file.

        Raises HostRefusal when the file is no checkpoint this host can train, with the reason and the next step.
        """
        with self._read_lock:
            if self._info is None:
                file, layout, empty = self._open()
                digest = sha256(file.path)
                alphas = schedule.read_schedule(file, layout.betas)
                self._info = ModelInfo(
                    host="standalone",
                    family=file.family,
                    prediction=layout.prediction or _probe(file, layout),
                    title=f"{file.path.name} [{digest[:10]}]",
                    name=file.path.stem,
                    file=str(file.path),
                    sha256=digest,
                    vae="",
                    text_encoders=tuple(empty.text),
                    latent_scale=layout.latent_scale,
                    clip_skip=1,
                    dtype=str(self._dtype).removeprefix("torch."),
                    device=str(self._device),
                    zero_terminal_snr=schedule.zero_terminal_snr(file, alphas),
                )
            return self._info

    def layers(self) -> Sequence[Layer]:
        """Return every Linear, Conv2d and norm that `Lease.targets` will offer; reads the file's header only."""
        file, _, empty = self._open()
        return tuple(target.layer for target in list_targets(empty, file.family))

    def lease(self, needs: Needs) -> StandaloneLease:
        """Return exclusive use of the model, to be entered with `with`; entering loads it if need be.

        Raises HostRefusal for arithmetic the device has not; entering raises it while another lease lasts.
        """
        if needs.compute_dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise HostRefusal(f"compute_dtype = {needs.compute_dtype}: use float32, float16 or bfloat16.")
        if self._device.type == "cpu" and needs.compute_dtype == torch.float16:
            raise HostRefusal("float16 arithmetic needs a GPU. On the CPU use float32, or bfloat16 where it is fast.")
        if self._device.type == "cuda" and needs.compute_dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
            raise HostRefusal("This GPU has no bfloat16 arithmetic. Use float16.")
        if needs.fp8_base and float8.reason_against():
            raise HostRefusal(f'{float8.reason_against()}. Switch "8-bit base model" off, or update torch.')
        if needs.compile:
            compiled.check(self._device, needs.fp8_base)
        return StandaloneLease(self.load, needs, self._lease_lock)

    def samplers(self) -> tuple[str, ...]:
        """Return the names `ImageRequest.sampler` can have."""
        return SAMPLERS

    def upscalers(self) -> tuple[NamedUpscaler, ...]:
        """Return none: without a WebUI there is Lanczos alone."""
        return ()

    def adapter_folder(self) -> str:
        """Return the folder for adapter files."""
        return str(self._adapters)

    def preset_files(self, name: str) -> tuple[Path, ...]:  # noqa: ARG002
        """Return none: there are no prompts here that name block weights."""
        return ()

    def announce(self, path: str) -> None:
        """Note a new adapter file; this host keeps no list of them."""
        logger.info("new adapter: %s", path)

    def _open(self) -> tuple[CheckpointFile, Layout, weights.Modules]:
        with self._read_lock:
            if self._opened is None:
                file = read_checkpoint(self._path)
                layout = infer_layout(file)
                empty = weights.build_empty(layout)
                weights.check_complete(file, layout, empty)
                self._opened = file, layout, empty
            return self._opened

    def load(self) -> LoadedModel:
        """Return the model with its weights, reading them at the first call. Change it only within a lease."""
        with self._read_lock:
            if self._model is None:
                info = self.info()
                file, layout, _ = self._open()
                modules = weights.load(file, layout, self._device, self._dtype)
                targets = tuple(list_targets(modules, file.family))
                alphas = schedule.read_schedule(file, layout.betas)
                self._model = LoadedModel(info, modules, targets, alphas, self._device)
            return self._model


def _probe(file: CheckpointFile, layout: Layout) -> Prediction:
    unet = weights.load(file, layout, torch.device("cpu"), torch.float32).unet
    return probe_prediction(unet, layout.unet["cross_attention_dim"])


@torch.no_grad()
def probe_prediction(unet: torch.nn.Module, context_width: int) -> Prediction:
    """Return what a UNet in float32 on the CPU predicts, for SD2 files that do not say it.

    Given a constant picture at the last timestep, a UNet that predicts noise returns about its input, one that predicts
    v the negative of a picture; the threshold is the WebUI's (sd_models_config.py, 1.10.1).
    """
    latents = torch.full((1, 4, 8, 8), 0.5)
    context = torch.full((1, 2, context_width), 0.5)
    output = unet(latents, torch.tensor([999]), encoder_hidden_states=context, return_dict=False)[0]
    return "v" if float((output - latents).mean()) < -1 else "epsilon"


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        return torch.device(name)
    raise HostRefusal(f"device = {name!r} is not available here. Use 'auto' or 'cpu'.")


def list_targets(modules: weights.Modules, family: Family) -> list[Target]:
    """Return the layers of the UNet in ldm's order of blocks, then those of the text encoders."""
    found = []
    for part, network in modules.parts():
        entries = []
        for name, module in network.named_modules():
            layer = layer_of(part, _path(part, name, family), module) if isinstance(module, _LAYERS) else None
            if layer is not None:
                entries.append(Target(layer, module))
        found += sorted(entries, key=lambda target: _place(target.layer)) if part == "unet" else entries
    return found


def _path(part: Part, name: str, family: Family) -> str:
    return weights.unet_path(name, family) if part == "unet" else name


def _place(layer: Layer) -> tuple[int, ...]:
    section, *rest = layer.path.split(".")
    numbers = rest[:1] if section == "middle_block" else rest[:2]
    return _SECTIONS.index(section), *(int(number) for number in numbers)
