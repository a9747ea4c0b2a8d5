"""A real browser for tests: Chromium by playwright, pages that may not have a script's error, and the tab served."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needed = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to be seen")


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a browser."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, size: tuple[int, int] = (1200, 900), seconds: float = 30) -> Iterator[Any]:
    """Yield a page at an address; no script of it may fail. seconds: how long it waits for anything."""
    with browser.new_context(viewport={"width": size[0], "height": size[1]}) as context:
        page, errors = context.new_page(), []
        page.set_default_timeout(1000 * seconds)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        assert errors == []


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address of the tab on a host that computes nothing, with the projects in a folder."""
    from fake_host import FakeHost
    from lib_lora_trainer.ui import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = serve.serve(FakeHost(folder / "Lora"), folder / "projects", port, block=False)
    yield f"http://127.0.0.1:{port}"
    blocks.close()
