"""A studio on any host's lease: adapters are attached to the model, each layer's change times its weight."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from lib_lora_trainer.adapters import existing, files, methods
from lib_lora_trainer.adapters.keys import file_key
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.app.preparation import DTYPES
from lib_lora_trainer.base.errors import Problem, UserError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.evaluate import grid_cells
from lib_lora_trainer.evaluate.grid_axes import Scene, Worn
from lib_lora_trainer.evaluate.grid_studio import Paint
from lib_lora_trainer.hosts.api import Host, ImageRequest, Lease, MadeImage, Needs
from lib_lora_trainer.plan.plan import resolve_precision
from lib_lora_trainer.workshop import presets, vectors
from lib_lora_trainer.workshop.bake import Weights
from lib_lora_trainer.workshop.places import place_of

_TAG = re.compile(r"<\s*(?:lora|lyco|hypernet)\s*:[^>]*>", re.IGNORECASE)
_SMALLEST, _STEP = 64, 8  # pixels


class AttachedStudio:
    """Makes images with checkpoints that `open_host` opens by their names, "" for the one that is loaded.

    Of two checkpoints only one is in memory at a time, if `open_host` keeps none.
    """

    def __init__(self, open_host: Callable[[str], Host]) -> None:
        self._open_host = open_host
        self._hosts: dict[str, Host] = {}  # asked, never leased: they hold no weights

    def _host(self, checkpoint: str) -> Host:
        if checkpoint not in self._hosts:
            self._hosts[checkpoint] = self._open_host(checkpoint)
        return self._hosts[checkpoint]

    def family(self) -> Family:
        """Return the family of the loaded model. Raises HostRefusal when none is loaded."""
        return self._host("").info().family

    def made_by(self, scene: Scene) -> Mapping[str, str]:
        """Return the host's name and what tells its model apart: its hash, or its title where it has none."""
        info = self._host(scene.checkpoint).info()
        return {"host": info.host, "model": info.sha256 or info.title, "vae": info.vae, "arithmetic": info.dtype}

    def problems(self, scenes: Sequence[Scene]) -> tuple[Problem, ...]:
        """Return everything of these scenes that cannot be had here, each thing once."""
        refused = [problem for scene in scenes for problem in _refused(scene)]
        # Of hundreds of scenes few differ in what a host is asked about.
        asked = {
            (scene.checkpoint, sampler_name(scene), *(worn.file for worn in scene.worn)): scene for scene in scenes
        }
        found = [problem for scene in asked.values() for problem in self._problems(scene)]
        return tuple(dict.fromkeys((*refused, *found)))

    def _problems(self, scene: Scene) -> Iterator[Problem]:
        try:
            host = self._host(scene.checkpoint)
            family = host.info().family
        except UserError as error:
            yield Problem("error", "checkpoint", str(error), "Choose another.")
            return
        if family != self.family():
            text = f"{scene.checkpoint} is {family}, the others are {self.family()}."
            yield Problem("error", "checkpoint", text, "Compare checkpoints of one family.")
            return
        known = host.samplers()
        if sampler_name(scene) not in known:
            text = f"{sampler_name(scene)!r} is not a sampler here."
            yield Problem("error", "sampler", text, f"Choose one of: {', '.join(known)}.")
        for worn in scene.worn:
            if not Path(worn.file).is_file():
                yield Problem("error", "adapter", f"{worn.file} does not exist.", "Choose a file that does.")
                continue
            try:
                existing.layers_in(Path(worn.file), host.layers(), family)
            except UserError as error:
                yield Problem("error", "adapter", str(error))

    @contextmanager
    def opened(self) -> Iterator[Paint]:
        """Yield what makes images; the model is taken at the first one."""
        with ExitStack() as stack:
            yield _Easel(self._open_host, stack).paint


def sampler_name(scene: Scene) -> str:
    """Return the sampler as hosts name it: with the noise schedule behind it, unless that is its own."""
    return scene.sampler if scene.scheduler == "Automatic" else f"{scene.sampler} {scene.scheduler}"


def _refused(scene: Scene) -> Iterator[Problem]:
    if scene.vae:
        yield Problem("error", "vae", f"{scene.vae!r}: this host cannot change the VAE.", "Leave it out.")
    if scene.hires != 1:
        yield Problem("error", "hires", "this host has no hires pass.", "Leave it out, or make the grid in the WebUI.")
    if min(scene.width, scene.height) < _SMALLEST or scene.width % _STEP or scene.height % _STEP:
        text = f"{scene.width}x{scene.height} cannot be made."
        yield Problem("error", "size", text, f"Use multiples of {_STEP}, {_SMALLEST} or more.")
    found = _TAG.search(f"{scene.prompt} {scene.negative}")
    if found:
        text = f"{found[0]} has no effect here."
        yield Problem("error", "prompt", text, "Take it out, and name the file as adapter or second adapter.")


class _Easel:
    """One checkpoint with its adapters, exchanged when a scene asks for others."""

    def __init__(self, open_host: Callable[[str], Host], stack: ExitStack) -> None:
        self._open_host = open_host
        self._outer = stack
        self._inner: ExitStack | None = None
        self._checkpoint: str | None = None
        self._lease: Lease | None = None
        self._read: dict[str, dict[Layer, torch.nn.Module]] = {}

    def paint(self, scene: Scene, go_on: Callable[[], bool]) -> MadeImage | None:
        if self._lease is None or scene.checkpoint != self._checkpoint:
            self._take(scene.checkpoint)
        lease = self._lease
        assert lease is not None
        worn = [(self._adapters(each.file), each) for each in scene.worn]
        for file in set(self._read) - {each.file for each in scene.worn}:
            del self._read[file]
        acting: dict[Layer, list[tuple[torch.nn.Module, float]]] = {}
        for adapters, each in worn:
            for layer, ratio in ratios(each, adapters, lease.info.family).items():
                acting.setdefault(layer, []).append((adapters[layer], ratio))
        with worn_by(lease.targets(), acting):
            return next(iter(list(lease.generate([request_of(scene)], go_on))), None)

    def _take(self, checkpoint: str) -> None:
        if self._inner is not None:
            self._inner.close()
        self._lease = None
        self._read.clear()
        host = self._open_host(checkpoint)
        self._inner = self._outer.enter_context(ExitStack())
        needs = Needs(compute_dtype=DTYPES[resolve_precision("auto", host.info())])
        self._lease = self._inner.enter_context(host.lease(needs))
        self._checkpoint = checkpoint

    def _adapters(self, file: str) -> dict[Layer, torch.nn.Module]:
        if file not in self._read:
            assert self._lease is not None
            tensors = existing.read(Path(file))
            restored = files.from_tensors(tensors, self._lease.targets(), self._lease.info.family)
            self._read[file] = {layer: each.eval().to(self._lease.device) for layer, each in restored.items()}
        return self._read[file]


def request_of(scene: Scene) -> ImageRequest:
    """Return what the host is asked for. The adapters' tags are in the prompt, so that txt2img repeats the image."""
    return ImageRequest(
        prompt=grid_cells.prompt_of(scene),
        negative=scene.negative,
        seed=scene.seed,
        steps=scene.steps,
        guidance=scene.guidance,
        width=scene.width,
        height=scene.height,
        sampler=sampler_name(scene),
        clip_skip=scene.clip_skip,
    )


def ratios(worn: Worn, layers: Mapping[Layer, Any], family: Family) -> dict[Layer, float]:
    """Return what each layer's change is multiplied by, where that is not 0."""
    vector = presets.choose(worn.blocks, family) if worn.blocks else vectors.flat(1.0, family)
    weights = Weights(vector, unet=worn.unet, text=worn.text)
    found = {layer: weights.of(place_of(file_key(layer, family), family)) for layer in layers}
    return {layer: ratio for layer, ratio in found.items() if ratio}


@contextmanager
def worn_by(
    targets: Sequence[Target], acting: Mapping[Layer, Sequence[tuple[torch.nn.Module, float]]]
) -> Iterator[None]:
    """Have a layer add ratio times each of its adapters' changes to its output; afterwards it is as it was.

    Other than `Attachment`, several adapters can be on a layer, each with a weight of its own. The result is
    multiplied, whatever the method, as in a baked file (test_block_weights_are_the_baked_file).
    """
    changed: list[tuple[Any, Any]] = []
    try:
        for target in targets:
            if target.layer in acting:
                changed.append((target.module, target.module.__dict__.get("forward")))
                target.module.__dict__["forward"] = _forward(target.module, acting[target.layer])
        yield
    finally:
        for module, before in changed:
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before


def _forward(module: Any, acting: Sequence[tuple[torch.nn.Module, float]]) -> Callable[..., torch.Tensor]:
    before = module.__dict__.get("forward")

    def forward(inputs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        own = type(module).forward if before is None else None
        output = own(module, inputs, *arguments, **options) if own else before(inputs, *arguments, **options)
        for adapter, ratio in acting:
            output = output + methods.output_delta(adapter, module, inputs, ratio).to(output.dtype)
        return output

    return forward
