"""Arguments that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def folder_command(
    parts: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command that is about a dataset's folder, and return its parser."""
    command: argparse.ArgumentParser = parts.add_parser(name, help=text, description=text)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the dataset's folder")
    command.add_argument("--config", type=Path, metavar="CONFIG.toml", help="settings of which FOLDER is a source")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=run)
    return command
