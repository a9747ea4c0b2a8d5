"""Every setting in words, from its one definition: the page docs/settings.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.run import RunConfig

_UNREACHED = 99_999  # a bound above this tells nobody anything


def markdown() -> str:
    """Return the reference of all settings as Markdown, one table per TOML table."""
    lines = [
        "# Settings",
        "",
        "Every setting of a run, as the tab, the TOML file and the command line know it. The file needs only what differs",
        "from the default; an unknown key is an error. `none` means: what suits the optimizer, or the dataset's value.",
    ]
    for table, owner in _tables(RunConfig(), ""):
        lines += ["", f"## {f'[{table}]' if table else 'Top level'}", "", *_rows(owner)]
    lines += ["", "## [[data.sources]]", "", *_rows(SourceConfig())]
    return "\n".join(lines) + "\n"


def _tables(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, owner
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if dataclasses.is_dataclass(value):
            yield from _tables(value, f"{prefix}.{field.name}" if prefix else field.name)


def _rows(owner: Any) -> Iterator[str]:
    yield "| setting | default | what it does |"
    yield "| --- | --- | --- |"
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if dataclasses.is_dataclass(value) or (owner.__class__ is RunConfig and field.name == "version"):
            continue
        about: Setting = field.metadata["setting"]
        yield f"| `{field.name}` | {_shown(value)} | {_escaped(about.help)}{_bounds(about)} |"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return _escaped(", ".join(f"`{item}`" for item in value)) or "[]"
    if isinstance(value, str):
        return f"`{_escaped(value)}`" if value else '""'
    return f"{value:g}"


def _bounds(about: Setting) -> str:
    if about.choices:
        return f" One of: {', '.join(about.choices)}."
    if about.minimum is None or about.maximum is None or about.maximum > _UNREACHED:
        return ""
    unit = f" {about.unit}" if about.unit else ""
    return f" {about.minimum:g} to {about.maximum:g}{unit}."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
