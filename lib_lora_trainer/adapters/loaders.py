"""What each host's own Lora extension reads of an adapter file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.config.adapter import METHODS, AdapterConfig

Basis = Literal["tested", "read", "own", "unknown"]

_OPTIONS = frozenset(
    (
        "norms",
        "weight_decompose",
        "rank_stabilized",
        "tucker",
        "scalar",
        "oft_constraint",
        "oft_rescaled",
    )
)
_RULE_METHOD = re.compile(r"\bmethod\s*=\s*(\w+)")
_NAMES = {"webui": "the WebUI", "forge": "Forge", "reforge": "reForge"}


@dataclass(frozen=True)
class Loadable:
    """What a loader reads. methods, options: as AdapterConfig names them; parts_without_norms: where it passes over
    norms.

    basis: `tested`: its deltas are compared with ours, layer by layer, in tests/test_loader_methods.py; `read`: taken
    from its source, never run; `own`: the file is read by this program; `unknown`: nothing is known.
    """

    methods: frozenset[str]
    options: frozenset[str]
    basis: Basis
    parts_without_norms: frozenset[str] = frozenset()


def loadable(host: str, family: Family) -> Loadable:
    """Return what the built-in loader of a host reads.

    webui: stable-diffusion-webui 1.10.1; forge: stable-diffusion-webui-forge at dfdcbab6 (2025-06); reforge: reForge
    main at 3b56b268 (2026-03). Both of the latter look up text encoders' attention and MLP layers alone.
    """
    everything = frozenset(METHODS)
    texts = frozenset({"te1", "te2"} if family == "sdxl" else {"te"})
    if host == "standalone":
        return Loadable(everything, _OPTIONS, "own")
    if host == "webui":
        return Loadable(everything, _OPTIONS, "tested")
    if host == "forge":
        without = {"oft_constraint", "oft_rescaled"}
        return Loadable(everything - {"ia3", "oft", "boft"}, _OPTIONS - without, "read", texts)
    if host == "reforge":
        return Loadable(everything - {"ia3"}, _OPTIONS - {"oft_constraint"}, "read", texts)
    return Loadable(frozenset(), frozenset(), "unknown")


def problems(host: str, family: Family, config: AdapterConfig) -> tuple[Problem, ...]:
    """Return warnings about what a host's own loader will not read of this adapter, or not exactly."""
    known = loadable(host, family)
    if known.basis == "own":
        return ()
    if known.basis == "unknown":
        text = f"it is not known what {host} reads of adapter files."
        return (Problem("note", "adapter.method", text),)
    used = {config.method, *(match[1] for rule in config.rules for match in _RULE_METHOD.finditer(rule))}
    return tuple(_problems(host, known, used & set(METHODS), config))


def _problems(host: str, known: Loadable, used: set[str], config: AdapterConfig) -> Iterator[Problem]:
    name = _NAMES[host]
    for method in sorted(used - known.methods):
        text = f"{name}'s Lora extension does not read {method}" + _UNREAD[host]
        yield Problem("warning", "adapter.method", text, "Choose lora, locon, loha, lokr, dylora, glora or full.")
    rotating = sorted(used & known.methods & {"oft", "boft"})
    if rotating and host == "webui":
        text = (
            f"the WebUI computes {' and '.join(rotating)} in the model's precision: with half precision it rounds the "
            "rotations to about 0.0005 of the weights, and with --precision half it fails."
        )
        yield Problem("warning", "adapter.method", text, "Start it with --no-half, or choose another method.")
    if rotating and host == "reforge":
        text = f"reForge's images with {' and '.join(rotating)} are those of training at strength 1 alone."
        yield Problem("warning", "adapter.method", text, "Use <lora:name:1>, or choose another method.")
        if config.oft_constraint:
            text = "reForge limits rotations to this value itself, not to it times the layer's outputs."
            yield Problem("warning", "adapter.oft_constraint", text, "Set it to 0.")
        if config.oft_rescaled and "oft" in rotating:
            text = "reForge passes over the factors of oft, though not over those of boft."
            yield Problem("warning", "adapter.oft_rescaled", text, "Switch it off, or choose boft.")
    if config.norms and config.text_encoder and known.parts_without_norms:
        text = f"{name}'s Lora extension does not read norms of text encoders" + _UNREAD[host]
        yield Problem("warning", "adapter.norms", text, "Switch norms off, or do not train the text encoder.")


# Forge refuses a file of which more than 12 tensors fit nothing (extensions-builtin/sd_forge_lora/networks.py).
_UNREAD = {
    "webui": ".",
    "forge": " and refuses the whole file when it has more than 12 such tensors.",
    "reforge": ": it leaves them out and says so in its log alone.",
}
