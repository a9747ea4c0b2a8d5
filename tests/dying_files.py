"""Changes to the disk that end the process at the n-th of them, and trees to compare folders by."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from lib_lora_trainer.dataset.tools.disk import Files

DIED = 77
CHANGES = [name for name in vars(Files) if not name.startswith("_")]


class DyingFiles:
    """Counts the changes and ends the process, without any clean-up, before the last one it may make.

    torn: count only changes that write content, and begin the last one: half of it is there, under the name that its
    own atomic way uses.
    """

    def __init__(self, last: int, torn: bool = False) -> None:
        self.count = 0
        self._last = last
        self._torn = torn
        self._files = Files()

    def __getattr__(self, name: str):
        assert name in CHANGES
        return partial(self._change, name)

    def _change(self, name: str, *arguments):
        self.count += not self._torn or name in ("write", "fill", "copy")
        if self.count == self._last:
            if self._torn:
                self._tear(name, *arguments)
            os._exit(DIED)
        return getattr(self._files, name)(*arguments)

    def _tear(self, name: str, *arguments) -> None:
        if name == "write":
            arguments[0].with_name(f".writing-x{arguments[0].suffix}").write_text(
                arguments[1][: len(arguments[1]) // 2]
            )
        elif name == "fill":
            arguments[0].write_bytes(b"half")
        elif name == "copy":
            arguments[1].write_bytes(arguments[0].read_bytes()[:1])


def in_child(work) -> int:
    """Run a function in a process of its own and return its exit status; DIED when it ended there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tree(root: Path) -> dict[str, object]:
    """Return every path below a folder with its content, mode and modification time; folders and links as such."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] == ".lora-trainer":
            continue
        about = path.lstat()
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), about.st_mode, about.st_mtime_ns)
    return found
