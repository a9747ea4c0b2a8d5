"""`<lora:name:1:lbw=PRESET>` in txt2img, where the extension sd-webui-lora-block-weight does not see to it."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import HostRefusal, UserError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.workshop import elements, presets, prompt, vectors
from lib_lora_trainer.workshop.bake import Weights
from lib_lora_trainer.workshop.places import place_of
from lib_lora_trainer.workshop.prompt import Tag

_LOG = logging.getLogger(__name__)
_THEIR_SCRIPT = "lora_block_weight.py"
_CACHES = ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")


@dataclass(frozen=True)
class Wish:
    """A tag with what its layers are multiplied by."""

    tag: Tag
    weights: Weights


@dataclass(frozen=True)
class Applied:
    """A network in force. original: as the loader has it in memory, unchanged; copied: with weights, in its place."""

    original: Any
    copied: Any
    tag: Tag


class BlockWeights:
    """Block weights in the WebUI's loader, from `install` to `undo`.

    The one thing that is replaced is `ExtraNetworkLora.activate`, through which every `<lora:…>` of every generation
    goes, with or without scripts. After it a network with block weights is in the loader's list as a copy, each module
    of which multiplies what it returns, weight and bias, whatever its method; no tensor is changed or read again.
    """

    def __init__(self) -> None:
        self._replaced: tuple[type, Any, Any] | None = None
        self._applied: list[Applied] = []
        self._last: tuple[str, ...] = ()
        self._told = False

    def install(self) -> bool:
        """Take the place of the loader's `activate`; tell whether there is a loader. A second call changes nothing."""
        module = sys.modules.get("extra_networks_lora")
        if module is None or self._replaced is not None:
            return module is not None
        kind = module.ExtraNetworkLora
        original = kind.activate

        @functools.wraps(original)
        def activate(extension: Any, p: Any, params_list: list[Any]) -> None:
            if self._replaced is None or self._is_theirs(p):
                original(extension, p, params_list)
            else:
                self._activate(functools.partial(original, extension), p, params_list)

        self._replaced = (kind, original, activate)
        kind.activate = activate
        return True

    def undo(self) -> None:
        """Put the loader's own `activate` back, and networks without weights into its list.

        Where somebody wrapped ours meanwhile, it stays in the chain and passes everything on.
        """
        if self._replaced is None:
            return
        kind, original, ours = self._replaced
        self._put_back()
        if kind.__dict__.get("activate") is ours:
            kind.activate = original  # type: ignore[attr-defined]  # the loader's class, known at run time only
        self._replaced = None

    def before_step(self, params: Any) -> None:
        """Switch adapters with `start=`, `stop=` or `step=` on and off, as the WebUI's sampler asks before each step.

        By lora-block-weight's rule: the WebUI counts a step when it is done, so at step k (from 1) its counter is k - 2
        but 0 at the first.
        """
        for each in self._applied:
            tag = each.tag
            begun = tag.start is None or params.sampling_step > tag.start - 2
            ended = tag.stop is not None and params.sampling_step > tag.stop - 2
            each.copied.unet_multiplier = tag.unet if begun and not ended else 0.0

    def _is_theirs(self, p: Any) -> bool:
        scripts = getattr(getattr(p, "scripts", None), "alwayson_scripts", None) or ()
        there = any(Path(str(getattr(script, "filename", ""))).name == _THEIR_SCRIPT for script in scripts)
        if there and not self._told:
            self._told = True
            _LOG.info("sd-webui-lora-block-weight is installed: block weights in prompts are left to it.")
        return there

    def _activate(self, original: Any, p: Any, params_list: list[Any]) -> None:
        from modules import extra_networks

        self._put_back()
        left, wishes = [], []
        for params in params_list:
            try:
                wish = _wish(params.items, p)
            except UserError as error:
                text = f"<lora:{':'.join(params.items)}>: {error} The adapter was left out of this image."
                _LOG.warning(text)
                p.comment(text)
                continue
            wishes.append(wish)
            left.append(params if wish is None else extra_networks.ExtraNetworkParams(items=list(wish.tag.items)))
        original(p, left)
        self._replace(wishes, p)

    def _replace(self, wishes: Sequence[Wish | None], p: Any) -> None:
        networks = sys.modules["networks"]
        waiting = [wish for wish in wishes if wish is not None]
        used: list[str] = []
        for index, net in enumerate(networks.loaded_networks):
            wish = next((each for each in waiting if each.tag.name == net.mentioned_name), None)
            if wish is None:
                continue
            waiting.remove(wish)
            try:
                copied = _weighted(net, wish)
            except UserError as error:
                _LOG.warning("%s: %s", net.name, error)
                p.comment(f"{net.name}: {error} It has no block weights in this image.")
                continue
            networks.loaded_networks[index] = copied
            self._applied.append(Applied(net, copied, wish.tag))
            used.append(copied.name)
        if tuple(used) != self._last:
            # Kept prompts are found again by their text, which can stand for other weights than before.
            for name in _CACHES:
                cache = getattr(p, name, None)
                if cache:
                    cache[0] = None
        self._last = tuple(used)

    def _put_back(self) -> None:
        """Have the loader find its own networks again, which it then need not read from disk."""
        networks = sys.modules.get("networks")
        originals = {id(each.copied): each.original for each in self._applied}
        if networks is not None:
            networks.loaded_networks[:] = [originals.get(id(net), net) for net in networks.loaded_networks]
        self._applied.clear()


@functools.lru_cache(maxsize=1)
def block_weights() -> BlockWeights:
    """Return the process's one: "Reload UI" runs the extension's script anew but keeps this module."""
    return BlockWeights()


def register() -> None:
    """Install block weights, until the WebUI unloads scripts."""
    from modules import script_callbacks

    ours = block_weights()
    if ours.install():
        script_callbacks.on_cfg_denoiser(ours.before_step)
        script_callbacks.on_script_unloaded(ours.undo)


def preset_files(name: str) -> tuple[Path, ...]:
    """Return the files of this name that there are: of lora-block-weight, switched on or not, then our own."""
    from modules import paths

    theirs = sorted(Path(paths.extensions_dir).glob(f"*/scripts/{name}"))
    own = Path(paths.data_path) / "lora-trainer" / name
    return (*theirs, *([own] if own.exists() else []))


def _wish(items: Sequence[str], p: Any) -> Wish | None:
    tag = prompt.read(items)
    if tag is None:
        return None
    family = _family()
    seeds = getattr(p, "all_seeds", None) or [getattr(p, "seed", 0)]
    draws = vectors.Draws(int(seeds[0]), tag.x)
    vector = vectors.flat(1.0, family)
    if tag.blocks:
        vector = presets.choose(tag.blocks, family, presets.read_all(preset_files(presets.FILE)), draws)
    directives: elements.Directives = ()
    if tag.elements:
        directives = elements.choose(tag.elements, elements.read_all(preset_files(elements.FILE)))
    return Wish(tag, Weights(vector, directives))


def _family() -> Family:
    from modules import shared

    model = shared.sd_model
    names: tuple[tuple[str, Family], ...] = (("is_sdxl", "sdxl"), ("is_sd2", "sd2"), ("is_sd1", "sd1"))
    found = next((family for name, family in names if getattr(model, name, False)), None)
    if found is None:
        raise HostRefusal("block weights are for SD1, SD2 and SDXL, which this model is not. Remove lbw= and its like.")
    return found


def _weighted(net: Any, wish: Wish) -> Any:
    """Return a copy of a network whose layers are multiplied; the copy's name tells the loader to merge anew."""
    copied = copy.copy(net)
    family = _family()
    # network_key is a whole tensor's name, of whichever of the layer's came first.
    keys = {key: module.network_key.partition(".")[0] for key, module in net.modules.items()}
    ratios = {key: wish.weights.of(place_of(name, family)) for key, name in keys.items()}
    content = repr((net.mtime, wish.tag.start, wish.tag.stop, sorted(ratios.items())))
    copied.name = f"{net.name} with block weights {hashlib.sha256(content.encode()).hexdigest()[:8]}"
    copied.te_multiplier, copied.unet_multiplier = wish.tag.text, wish.tag.unet
    copied.modules = {key: _multiplied(module, copied, ratios[key]) for key, module in net.modules.items()}
    return copied


def _multiplied(module: Any, net: Any, ratio: float) -> Any:
    copied = copy.copy(module)
    copied.network = net
    # The loader multiplies both weight and bias by this, after everything else.
    copied.multiplier = lambda: type(module).multiplier(copied) * ratio
    return copied
