"""What one browser has open: its project, the settings it last saw, and what it may undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_lora_trainer.app import projects
from lib_lora_trainer.app.projects import Difference, Project
from lib_lora_trainer.base.errors import ConfigError, RunConflict
from lib_lora_trainer.config.paths import flat
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields

_TOLD = 12  # changes that a sentence names


@dataclass(frozen=True)
class Session:
    """project: "" until one is open. version, config: of its file as this browser knows it.

    config is always what this browser's form shows. undo: the settings before the last recipe or import. planned: the
    settings whose plan had no errors. told: what to say when the form is drawn anew. saved_as: (key, path) of the
    folder form that was saved last.
    """

    project: str = ""
    version: str = ""
    config: RunConfig = field(default_factory=RunConfig)
    undo: RunConfig | None = None
    planned: RunConfig | None = None
    told: tuple[str, ...] = ()
    saved_as: tuple[str, str] = ("", "")

    @property
    def ready(self) -> bool:
        """Whether training may start: the settings are the ones that were planned."""
        return self.planned is not None and self.planned == self.config


@dataclass(frozen=True)
class Committed:
    """messages: what the user should know; reload: the fields show something else than the settings do."""

    session: Session
    messages: tuple[str, ...] = ()
    reload: bool = False


def project_of(root: Path, session: Session) -> Project:
    """Return the session's project. Raises ConfigError when none is open."""
    if not session.project:
        raise ConfigError("project: none is open. Create one, or choose one in the list.")
    return projects.find(root, session.project)


def opened(root: Path, name: str) -> Session:
    """Return a session on a project. Raises ConfigError when it does not exist or cannot be read."""
    snapshot = projects.load(projects.find(root, name))
    return Session(name, snapshot.version, snapshot.config)


def latest(root: Path, before: Session, remembered: str) -> Session:
    """Return a session on the project that is open, else on the one this browser had, else on the one changed last.

    The plan and the undo of a project that stays open are kept.
    """
    known = projects.names(root)
    if not known:
        return Session()
    name = next((name for name in (before.project, remembered) if name in known), known[0])
    session = opened(root, name)
    return replace(session, undo=before.undo, planned=before.planned) if name == before.project else session


def commit(root: Path, session: Session, config: RunConfig) -> Committed:
    """Save the settings. Where another browser changed others meanwhile, both changes are kept.

    Where both changed the same one, the other's value stays and the message names both values.
    """
    project = project_of(root, session)
    try:
        version = projects.save(project, config, session.version)
        return Committed(replace(session, version=version, config=config))
    except RunConflict:
        now = projects.load(project)
    merged = projects.merge(session.config, config, now.config)
    version = projects.save(project, merged.config, now.version)
    # Two quick edits of this very browser also meet here; then nothing differs from what its form shows.
    lost = {difference.path for difference in expanded(merged.refused)}
    told = [
        f"Not saved: your {_name(d)} = {_shown(d.first)}, because it was changed to {_shown(d.second)} meanwhile."
        if d.path in lost
        else f"Changed in another browser: {_name(d)} is now {_shown(d.second)}."
        for d in expanded(projects.differences(config, merged.config))
    ]
    return Committed(replace(session, version=version, config=merged.config), tuple(told), reload=bool(told))


def described(changes: Sequence[Difference]) -> str:
    """Return differences as one sentence: `Rank (dim) 16 → 32, …`; of many the first ones and the number of the rest."""
    known = expanded(changes)
    words = [f"{_name(d)} {_shown(d.first)} → {_shown(d.second)}" for d in known[:_TOLD]]
    return ", ".join(words) + (f", and {len(known) - _TOLD} more" if len(known) > _TOLD else "")


def expanded(changes: Sequence[Difference]) -> list[Difference]:
    """Return differences with one in the folders taken apart: which folders came and went, and which of their settings
    differ.
    """
    found: list[Difference] = []
    for change in changes:
        if change.path != "data.sources":
            found.append(change)
            continue
        if [source.path for source in change.first] != [source.path for source in change.second]:
            found.append(change)
            continue
        for index, (one, two) in enumerate(zip(change.first, change.second, strict=True)):
            where = f"data.sources[{index}]"
            found += [
                Difference(f"{where}.{path}", value, dict(flat(two))[path])
                for path, value in flat(one)
                if value != dict(flat(two))[path]
            ]
    return found


def _name(difference: Difference) -> str:
    return fields.label_of(difference.path)


def _shown(value: object) -> str:
    return fields.shown(value)
