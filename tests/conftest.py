"""Keeps every test off the network, and selects tests by what the machine has."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

LOOPBACK = ("localhost", "ip6-localhost", "::1", "0.0.0.0", "::", "")
DEAD_PROXY = "http://127.0.0.1:9"

# For libraries that ask first, and for the processes that tests start: those have no guarded socket, but a dead proxy.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    GRADIO_ANALYTICS_ENABLED="False",
    HTTP_PROXY=DEAD_PROXY,
    HTTPS_PROXY=DEAD_PROXY,
    http_proxy=DEAD_PROXY,
    https_proxy=DEAD_PROXY,
    NO_PROXY="localhost,127.0.0.1,::1,0.0.0.0",
    no_proxy="localhost,127.0.0.1,::1,0.0.0.0",
)


class NetworkBlockedError(OSError):
    """A test tried to leave this machine."""


def check_host(host: object) -> None:
    """Raise NetworkBlockedError unless a host, as name or address, is this machine."""
    name = host.decode() if isinstance(host, bytes) else "" if host is None else str(host)
    if name not in LOOPBACK and not name.startswith("127."):
        raise NetworkBlockedError(f"tests run offline, but something asked for {name!r}")


class GuardedSocket(socket.socket):
    """A socket that connects only to this machine; local (unix) sockets pass."""

    def connect(self, address):
        if isinstance(address, tuple):
            check_host(address[0])
        return super().connect(address)

    def connect_ex(self, address):
        if isinstance(address, tuple):
            check_host(address[0])
        return super().connect_ex(address)


def guarded_lookup(lookup):
    """Return a name lookup that asks no server: only names of this machine pass."""

    def guarded(host, *arguments, **options):
        check_host(host)
        return lookup(host, *arguments, **options)

    return guarded


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take more than 20 seconds")


def pytest_configure(config):
    if importlib.util.find_spec("hypothesis"):
        from hypothesis import settings

        # The same examples every time, however slow the machine is.
        settings.register_profile("steady", deadline=None, derandomize=True)
        settings.load_profile("steady")
    socket.socket = GuardedSocket
    socket.getaddrinfo = guarded_lookup(socket.getaddrinfo)
    socket.gethostbyname = guarded_lookup(socket.gethostbyname)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if item.get_closest_marker("webui") and not os.environ.get("SD_WEBUI_DIR"):
            item.add_marker(pytest.mark.skip(reason="needs a WebUI: set SD_WEBUI_DIR"))
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def has_gpu() -> bool:
    """Tell whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a browser, for the tests of one file."""
    from browsing import launched

    with launched() as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch):
    """Files are not waited for until they are on the disk: that is slow, and no matter to a process that dies."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
