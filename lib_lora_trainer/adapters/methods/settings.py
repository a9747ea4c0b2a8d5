"""Which settings of an adapter do not go together."""

from __future__ import annotations

from lib_lora_trainer.adapters.methods.initial import INSTALL, unfit
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.adapter import AdapterConfig

DECOMPOSED = ("lora", "locon", "loha", "lokr")
SCALED = (*DECOMPOSED, "glora")
_RANKED = (*SCALED, "dylora")


def problems(config: AdapterConfig) -> tuple[Problem, ...]:
    """Return what of the method's settings contradicts itself or has no effect, and a lycoris-lora that is missing."""
    method = config.method
    found = [
        _without("weight_decompose", config.weight_decompose, method, DECOMPOSED),
        _without("rank_stabilized", config.rank_stabilized, method, _RANKED),
        _without("tucker", config.tucker, method, DECOMPOSED),
        _without("scalar", config.scalar, method, SCALED),
    ]
    if config.scale_weight_norms and method in ("oft", "boft"):
        text = f"a norm of {config.scale_weight_norms} cannot be set for {method}, whose change is a rotation."
        found.append(Problem("error", "adapter.scale_weight_norms", text, "Set it to 0; oft_constraint limits it."))
    found += _sizes(config)
    reason = unfit() if method in _RANKED and not config.start_from else ""
    if reason:
        found.append(Problem("error", "adapter.method", f"{method} needs version 3 or 4 of LyCORIS: {reason}", INSTALL))
    return tuple(problem for problem in found if problem is not None)


def _without(name: str, on: bool, method: str, methods: tuple[str, ...]) -> Problem | None:
    if not on or method in methods:
        return None
    text = f"there is no {name} for {method}, only for {', '.join(methods)}."
    return Problem("error", f"adapter.{name}", text, "Switch it off, or choose one of these methods.")


def _sizes(config: AdapterConfig) -> list[Problem]:
    found = []
    unit = config.dylora_unit
    for name in ("rank", "conv_rank") if config.method == "dylora" else ():
        rank = getattr(config, name)
        if rank % unit:
            text = f"{rank} is no multiple of dylora_unit = {unit}."
            found.append(Problem("error", f"adapter.{name}", text, f"Choose {max(unit, rank // unit * unit)}."))
    for name in ("rank", "conv_rank") if config.method == "oft" else ():
        if getattr(config, name) < 2:
            text = "oft with blocks of one value rotates nothing."
            found.append(Problem("error", f"adapter.{name}", text, "Choose at least 2."))
    if config.method == "lokr" and config.lokr_full_matrix:
        for name in ("lokr_decompose_both", "rank_stabilized", "tucker"):
            if getattr(config, name):
                text = "lokr with full matrices has no rank that this could act on."
                found.append(Problem("error", f"adapter.{name}", text, "Switch it or lokr_full_matrix off."))
    return found
