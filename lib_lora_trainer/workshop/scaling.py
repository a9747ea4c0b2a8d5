"""The tensors of one layer in an adapter file, changed so that its delta is a multiple of what it was.

Of every method the result is multiplied, not some factor: the delta that the WebUI's loader forms of the new tensors is
`ratio` times the one it forms of the old (test_the_loader_reads_the_multiple). Ranked methods get another alpha, so
their factors stay as they are, bit for bit. Where the file's form cannot say it (rotations, DoRA) the layer becomes a
difference of its weight, for which the base weight is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.targets import Target
from lib_lora_trainer.base.errors import DataError

Tensors = dict[str, torch.Tensor]
_PEFT = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
_RANKED = frozenset(("alpha", "scale", "bias"))
_LORA = ("lora_up.weight", "lora_down.weight", "lora_mid.weight")
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
_GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
# By which a file's tensors are known, in the loader's order; what else may be there; which of them make the delta zero.
_FORMS: tuple[tuple[tuple[str, ...], frozenset[str], tuple[str, ...]], ...] = (
    (_LORA[:2], _RANKED | {*_LORA}, ("lora_up.weight",)),
    (_LOHA[:4], _RANKED | {*_LOHA}, ("hada_w1_a",)),
    (("weight", "on_input"), frozenset(("weight", "on_input")), ("weight",)),
    (("lokr_w1",), _RANKED | {*_LOKR}, ("lokr_w1",)),
    (("lokr_w1_a", "lokr_w1_b"), _RANKED | {*_LOKR}, ("lokr_w1_a",)),
    (("diff",), frozenset(("diff", "diff_b")), ("diff", "diff_b")),
    (("w_norm", "b_norm"), frozenset(("w_norm", "b_norm")), ("w_norm", "b_norm")),
    (_GLORA, frozenset((*_GLORA, "alpha")), ("a1.weight", "b1.weight")),
    (("oft_blocks",), frozenset(("oft_blocks", "alpha", "rescale")), ("oft_blocks", "alpha")),
)
_MAGNITUDES = "dora_scale"
_LARGEST_ROUNDING = 2.0**-8


def check(key: str, parts: Mapping[str, torch.Tensor]) -> None:
    """Raise DataError naming the layer when its tensors are no form that can be multiplied."""
    _form(key, parts)


def needs_base(parts: Mapping[str, torch.Tensor], ratio: float) -> bool:
    """Tell whether the base weight is needed: for DoRA, OFT and BOFT at other ratios than 0 and 1."""
    return ratio not in (0.0, 1.0) and (_MAGNITUDES in parts or "oft_blocks" in parts)


def scaled(
    key: str, parts: Mapping[str, torch.Tensor], ratio: float, base: Callable[[], Target] | None = None
) -> Tensors:
    """Return the layer's tensors with `ratio` times its delta, weight and bias.

    parts: by their names without the layer's key; ratio 1 gives the same tensors, 0 none. base: the layer in the model,
    asked for where `needs_base`; the result then holds for this model, as the delta itself does.
    Tensors keep their type unless rounding to it would change them by more than 1/256 of their norm, as half precision
    does with values below 6e-5: they are float32 then, and alpha always is.
    Raises DataError naming the layer.
    """
    if ratio == 1:
        return dict(parts)
    if ratio == 0:
        return {}
    form = _form(key, parts)
    if needs_base(parts, ratio):
        if base is None:
            raise DataError(
                f"{key}: a multiple of {'DoRA' if _MAGNITUDES in parts else 'a rotation (OFT, BOFT)'} depends on the "
                "model's weights. Name the checkpoint."
            )
        return _as_difference(parts, ratio, base())
    if form[0][0] == "lora_up.weight" and "lora_A.weight" in parts:
        # The WebUI's loader drops alpha from such files: their scale is 1.
        parts = {_PEFT[name]: parts[name] for name in _PEFT}
    if form[1] >= _RANKED and not {"lokr_w1", "lokr_w2"} <= parts.keys():
        return _ranked(parts, ratio)
    if "scale" in parts:
        return {**parts, "scale": _float32(parts["scale"], ratio)}
    return {name: _multiplied(value, ratio) if name in form[2] else value for name, value in parts.items()}


def zeroed(key: str, parts: Mapping[str, torch.Tensor]) -> Tensors:
    """Return tensors of the same form whose delta is zero for every reader.

    alpha = 0 would not do: sd-scripts reads it as "equal to the rank". DoRA's magnitudes and OFT's factors are left out.
    """
    zeros = _form(key, parts)[2]
    named = {_PEFT.get(name, name): value for name, value in parts.items()}
    left = {name: value for name, value in named.items() if name not in (_MAGNITUDES, "rescale", "bias")}
    return {name: torch.zeros_like(value) if name in zeros else value for name, value in left.items()}


def _form(key: str, parts: Mapping[str, torch.Tensor]) -> tuple[tuple[str, ...], frozenset[str], tuple[str, ...]]:
    given = {_PEFT.get(name, name) for name in parts}
    form = next((each for each in _FORMS if given.issuperset(each[0])), None)
    if form is None:
        raise DataError(
            f"{key}: {', '.join(sorted(given))} is no adapter that can be multiplied. Leave its weight at 1 or 0."
        )
    decomposed = {_MAGNITUDES} if form[1] >= _RANKED and "lora_A.weight" not in parts else set()
    unknown = sorted(given - form[1] - decomposed)
    if unknown:
        raise DataError(
            f"{key}: how {', '.join(unknown)} acts beside {', '.join(form[0])} is not known, so the layer cannot be "
            "multiplied. Leave its weight at 1 or 0."
        )
    return form


def _ranked(parts: Mapping[str, torch.Tensor], ratio: float) -> Tensors:
    """Return the parts with another alpha: the loader multiplies by `scale`, else by alpha / rank, without alpha by 1."""
    if "scale" in parts:
        return {**parts, "scale": _float32(parts["scale"], ratio)}
    if "alpha" in parts:
        return {**parts, "alpha": _float32(parts["alpha"], ratio)}
    last = next(parts[name] for name in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in parts)
    return {**parts, "alpha": torch.tensor(last.shape[0] * ratio, dtype=torch.float32)}


def _as_difference(parts: Mapping[str, torch.Tensor], ratio: float, target: Target) -> Tensors:
    with torch.no_grad():
        delta = methods.weight_delta(methods.restore(target, parts).eval())
    kind = max((value for value in parts.values()), key=torch.Tensor.numel).dtype
    return {"diff": _kept(delta.cpu().double() * ratio, kind).contiguous()}


def _float32(value: torch.Tensor, ratio: float) -> torch.Tensor:
    return (value.double() * ratio).float()


def _multiplied(value: torch.Tensor, ratio: float) -> torch.Tensor:
    return _kept(value.double() * ratio, value.dtype)


def _kept(exact: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    rounded = exact.to(kind)
    error = (rounded.double() - exact).norm()
    small = bool(error <= _LARGEST_ROUNDING * exact.norm())  # false for what overflows as well
    return rounded if small else exact.float()
