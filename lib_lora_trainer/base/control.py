"""The wish of whoever watches a job: go on, pause, or stop."""

from __future__ import annotations

import threading
from typing import Literal

Wish = Literal["go", "pause", "stop"]


class Control:
    """Carries a wish from the thread that watches a job to the thread that runs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wish: Wish = "go"

    def ask(self, wish: Wish) -> None:
        """State the wish; a stop is final and a later pause does not take it back."""
        with self._lock:
            if self._wish != "stop":
                self._wish = wish

    @property
    def wish(self) -> Wish:
        """The wish as it stands; a job looks once per step."""
        with self._lock:
            return self._wish
