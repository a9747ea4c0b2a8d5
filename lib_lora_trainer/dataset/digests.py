"""The content of files as digests, each file read once per run."""

from __future__ import annotations

from pathlib import Path

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import sha256


class ContentDigests:
    """SHA-256 of files' contents, as they were when first asked for; names and dates play no part."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return 64 hexadecimal digits. Raises DataError naming a file that cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = sha256(path)
            except OSError as error:
                reason = error.strerror or error
                raise DataError(f"{path}: cannot be read: {reason}. Scan the folder again.") from error
        return self._known[path]
