"""From the operations that a tool proposes to the steps that the journal records: new contents made, old ones known."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.disk import FOLDER
from lib_lora_trainer.dataset.tools.operations import Operation
from lib_lora_trainer.dataset.tools.steps import Site, Step

NEW, OLD = "new", "old"  # the two halves of an entry's holding


def prepared(operations: Sequence[Operation], site: Site) -> Generator[Phase, None, tuple[Step, ...]]:
    """Write every new content into the holding and return the steps; nothing of the dataset is changed.

    An operation that would change nothing is left out. Raises DataError that names a file used twice, one that is in
    the way or missing, or one on another drive than the dataset, where no change could be undone at once.
    """
    try:
        _check(operations, site)
        for half in (NEW, OLD):
            (site.slots / half).mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{error.filename or site.root}: {error.strerror or error}. Nothing was changed.") from error
    steps: list[Step] = []
    for number, operation in enumerate(operations):
        yield Phase("preparing", number, len(operations))
        try:
            steps += _steps(operation, number, site)
        except OSError as error:
            raise DataError(f"{printable(operation.path)}: {error.strerror or error}. Nothing was changed.") from error
    yield Phase("preparing", len(operations), len(operations))
    if not steps:
        return ()
    return (*_folders(steps, site), *steps)


def _check(operations: Sequence[Operation], site: Site) -> None:
    used: set[Path] = set()
    drives: dict[Path, int] = {}
    home = site.slots.parent.stat().st_dev
    for operation in operations:
        for path in filter(None, (operation.path, operation.to)):
            if path in used:
                raise DataError(f"{printable(path)}: two changes are planned for it at once. Do them one by one.")
            used.add(path)
            if path.parent not in drives:
                drives[path.parent] = _existing(path.parent).stat().st_dev
            if drives[path.parent] != home:
                raise DataError(
                    f"{printable(path)}: lies on another drive than the dataset {printable(site.root)}, so that changes "
                    "could not be undone safely. Move it into the dataset's folder."
                )
        _check_names(operation, site)


def _check_names(operation: Operation, site: Site) -> None:
    target = operation.path if operation.kind == "write" else operation.to
    if target is not None and site.identities.of(target):
        raise DataError(f"{printable(target)}: exists already. Move it away, or give it another name.")
    if operation.kind != "write" and not site.identities.of(operation.path):
        raise DataError(f"{printable(operation.path)}: does not exist any more. Look at the folder again.")
    if operation.kind in ("replace", "remove") and site.identities.of(operation.path) == FOLDER:
        raise DataError(f"{printable(operation.path)}: is a folder, not a file.")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _steps(operation: Operation, number: int, site: Site) -> list[Step]:
    path, old = _stored(operation.path, site), f"{OLD}/{_slot(operation.path, number)}"
    if operation.kind == "drop":
        return [Step("drop", path)]
    before = "" if operation.kind == "write" else site.identities.of(operation.path)
    if operation.kind == "move":
        assert operation.to is not None
        return [Step("move", path, to=_stored(operation.to, site), digest=before)]
    if operation.kind == "remove":
        return [Step("take", path, slot=old, digest=before)]
    assert operation.content is not None
    new = f"{NEW}/{_slot(operation.path, number)}"
    site.files.fill(site.slot(new), operation.content, operation.path if before else None)
    after = site.content(new)
    if operation.kind == "write":
        return [Step("put", path, slot=new, digest=after)]
    if after == before:
        site.files.discard(site.slot(new))
        return []
    return [Step("swap", path, slot=new, held=old, digest=after, former=before)]


def _slot(path: Path, number: int) -> str:
    """Return a short name, whatever the length of the file's own, that still opens in a viewer."""
    suffix = path.suffix if len(path.suffix) <= 8 and path.suffix.isascii() else ""
    return f"{number:05d}{suffix}"


def _stored(path: Path, site: Site) -> str:
    return path.relative_to(site.root).as_posix() if path.is_relative_to(site.root) else str(path)


def _folders(steps: Sequence[Step], site: Site) -> list[Step]:
    """Return the steps that make the folders which new paths need, outer ones first."""
    needed: set[Path] = set()
    for step in steps:
        target = step.to if step.kind == "move" else step.path if step.kind == "put" else ""
        folder = site.at(target).parent if target else site.root
        while not folder.is_dir():
            needed.add(folder)
            folder = folder.parent
    return [Step("make", _stored(folder, site)) for folder in sorted(needed, key=lambda folder: len(folder.parts))]
