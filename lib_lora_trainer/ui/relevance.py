"""Which settings mean nothing as the others stand: they are shown greyed or not at all, and keep their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.paths import flat
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields

Condition = Mapping[str, Sequence[Any]]
"""Dotted setting → the values of it, all settings at once, with which something has a meaning."""

_LOW_RANK = ("lora", "locon", "loha", "lokr")
_RANKED = ("lora", "locon", "loha", "lokr", "dylora", "oft", "boft", "glora")
_WITH_CONVOLUTIONS = ("locon", "loha", "lokr", "dylora", "oft", "boft", "glora")  # where `layers` is auto
_LOOKING_FOR_RATE = ("prodigy", "schedulefree-prodigy", "dadapt-adam", "dadapt-lion")
_RESTARTING = ("cosine-restarts", "annealed-cosine")


class _Other:
    """Stands for every value but some."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __contains__(self, value: object) -> bool:
        return value not in self._values

    def __str__(self) -> str:
        return "not " + " or ".join(fields.shown(value) for value in self._values)


@dataclass(frozen=True)
class Rule:
    """Settings that mean something only while one of the conditions holds."""

    paths: tuple[str, ...]
    conditions: tuple[Mapping[str, Any], ...]


def _only(paths: str, *conditions: Mapping[str, Any]) -> Rule:
    return Rule(tuple(paths.split()), tuple(MappingProxyType(dict(each)) for each in conditions))


RULES: tuple[Rule, ...] = (
    _only("adapter.rank adapter.alpha", {"adapter.method": _RANKED}),
    _only(
        "adapter.conv_rank adapter.conv_alpha",
        {"adapter.layers": ("all",), "adapter.method": _RANKED},
        {"adapter.layers": ("auto",), "adapter.method": _WITH_CONVOLUTIONS},
    ),
    _only("adapter.blocks", {"adapter.unet": (True,)}),
    _only("adapter.weight_decompose", {"adapter.method": _LOW_RANK}),
    _only("adapter.rank_stabilized", {"adapter.method": _RANKED}),
    _only("adapter.lokr_factor adapter.lokr_decompose_both adapter.lokr_full_matrix", {"adapter.method": ("lokr",)}),
    _only("adapter.dylora_unit", {"adapter.method": ("dylora",)}),
    _only("adapter.oft_constraint adapter.oft_rescaled", {"adapter.method": ("oft", "boft")}),
    _only("optimizer.custom_class", {"optimizer.name": ("custom",)}),
    _only("optimizer.unet_learning_rate", {"adapter.unet": (True,)}),
    _only("optimizer.text_learning_rate training.text_encoder_until", {"adapter.text_encoder": (True,)}),
    _only("optimizer.d0 optimizer.growth_rate", {"optimizer.name": _LOOKING_FOR_RATE}),
    _only("optimizer.d_coefficient", {"optimizer.name": ("prodigy", "schedulefree-prodigy")}),
    _only("optimizer.cycles optimizer.cycle_decay", {"optimizer.schedule": _RESTARTING}),
    _only("optimizer.cycle_warmup", {"optimizer.schedule": ("annealed-cosine",)}),
    _only("optimizer.power", {"optimizer.schedule": ("polynomial",)}),
    _only("optimizer.minimum", {"optimizer.schedule": _Other("constant")}),
    _only("loss.huber_schedule loss.huber_c loss.huber_scale", {"loss.kind": ("huber", "smooth-l1")}),
    _only("loss.mask_minimum loss.normalize_masks", {"loss.masked": (True,)}),
    _only("noise.offset_random noise.adaptive_offset", {"noise.offset": _Other(0.0)}),
    _only("noise.pyramid_discount", {"noise.pyramid_iterations": _Other(0)}),
    _only("noise.input_perturbation_random", {"noise.input_perturbation": _Other(0.0)}),
    _only("noise.timestep_bias", {"noise.timesteps": ("logit-normal",)}),
    _only("data.bucket_minimum data.bucket_maximum data.bucket_step data.no_upscale", {"data.bucket": (True,)}),
    _only("data.face_crop_maximum", {"data.face_crop_minimum": _Other(0.0)}),
    _only("data.caption.warmup_tags", {"data.caption.warmup": _Other(0.0)}),
)


def meaningless(config: RunConfig) -> dict[str, str]:
    """Return the settings without a meaning now, each with the reason: `only with Method: lokr`."""
    values = dict(flat(config))
    found: dict[str, str] = {}
    for rule in RULES:
        if not any(_holds(condition, values) for condition in rule.conditions):
            found.update(dict.fromkeys(rule.paths, _reason(rule.conditions, values)))
    return found


def changed(config: RunConfig) -> dict[str, int]:
    """Return for each group how many of its folded settings differ from their defaults and mean something."""
    values, idle = dict(flat(config)), meaningless(config)
    counts: dict[str, int] = {}
    for field in fields.folded_fields():
        if values[field.path] != field.default and field.path not in idle:
            counts[field.group] = counts.get(field.group, 0) + 1
    return counts


def group_element(group: str) -> str:
    """Return the end of a group's id in the page: `data-caption`, `general` for the top."""
    return group.replace(".", "-") or "general"


def style(config: RunConfig) -> str:
    """Return a style sheet that greys what means nothing, hides it behind the folds, and counts what was changed.

    A style needs no script and survives every redrawing of the form.
    """
    rules = ""
    for path, reason in meaningless(config).items():
        name = f"#{fields.element(path)}"
        rules += (
            f'{name}>*{{opacity:.55}}{name}::after{{content:"{css_text(reason)}";display:block;font-size:var(--text-sm);'
            f"color:var(--body-text-color-subdued)}}#lora_trainer_fold_more:not([data-searching]) "
            f"#lora_trainer_groups {name}{{display:none}}"
        )
    for group, count in changed(config).items():
        head = f"#lora_trainer_fold_{group_element(group)} .lora-trainer-fold-head::after"
        rules += f'{head}{{content:"{css_text(f"{count} changed")}"}}'
    return f"<style>{rules}</style>"


def css_text(text: str) -> str:
    """Return text for the inside of a CSS string, in escapes only, so that nothing in it can end the string."""
    return "".join(f"\\{ord(letter):06x}" for letter in text)


def _holds(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(values[path] in allowed for path, allowed in condition.items())


def _reason(conditions: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    texts = []
    for condition in conditions:
        missing = [
            f"{fields.label_of(path)}: {_names(allowed)}"
            for path, allowed in condition.items()
            if values[path] not in allowed
        ]
        texts.append(" and ".join(missing))
    return "only with " + ", or ".join(texts)


def _names(allowed: Any) -> str:
    return str(allowed) if isinstance(allowed, _Other) else ", ".join(fields.shown(value) for value in allowed)
