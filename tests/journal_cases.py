"""A folder with every kind of change to be made to it, and what is done with a journal in one line."""

from __future__ import annotations

import os

from lib_lora_trainer.dataset.journal import Journal
from lib_lora_trainer.dataset.tools.operations import drop, move, remove, replace, write


def text(content: str):
    return lambda path: path.write_text(content, encoding="utf-8")


def dataset(tmp_path):
    """Return a folder with a file of every kind that is changed below."""
    root = tmp_path / "set"
    for name in ("10_a/kept.txt", "10_a/replaced.txt", "10_a/gone.txt", "10_a/moved.txt", "b/c/alone.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"old {name}", encoding="utf-8")
        os.utime(path, ns=(10**18, 10**18 + len(name)))
    (root / "10_a" / "readonly.txt").write_text("old readonly", encoding="utf-8")
    (root / "10_a" / "readonly.txt").chmod(0o444)
    return root


def changes(root):
    """Every kind of operation on files, one of each."""
    return (
        write(root / "new" / "deep" / "written.txt", text("new")),
        replace(root / "10_a" / "replaced.txt", text("other")),
        replace(root / "10_a" / "readonly.txt", text("other readonly")),
        remove(root / "10_a" / "gone.txt"),
        move(root / "10_a" / "moved.txt", root / "new" / "moved.txt"),
        move(root / "b" / "c" / "alone.txt", root / "alone.txt"),
        drop(root / "b" / "c"),
        drop(root / "b"),
    )


def renames(root):
    """Folders that are renamed inside each other, the inner one first."""
    return (move(root / "b" / "c", root / "b" / "5_c"), move(root / "b", root / "3_b"))


def run(root, operations, files=None):
    """Record one entry and return it."""
    with Journal(root, files) as journal:
        recording = journal.record("tool", "some files", operations)
        while True:
            try:
                next(recording)
            except StopIteration as ended:
                return ended.value


def undo(root):
    with Journal(root) as journal:
        return journal.undo()


def redo(root):
    with Journal(root) as journal:
        return journal.redo()


def without_times(found):
    return {name: about[:2] if isinstance(about, tuple) else about for name, about in found.items()}
