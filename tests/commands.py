"""The command line as a function: what the program is given, and what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from lib_lora_trainer.cli import program


def runner(monkeypatch: Any, capsys: Any, *fixed: object) -> Callable[..., tuple[int, list[Any], str]]:
    """Return a function that runs the program and returns its exit status, lines and errors; JSON lines are read.

    fixed: the arguments that come first, the command's name above all. Nothing waits for the disk.
    """
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def run(*arguments: object) -> tuple[int, list[Any], str]:
        status = program.main([*map(str, fixed), *map(str, arguments)])
        said = capsys.readouterr()
        lines = said.out.splitlines()
        return status, [json.loads(line) for line in lines] if "--json" in arguments else lines, said.err

    return run
