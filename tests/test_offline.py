"""The tests cannot leave this machine, also not by accident."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request

import pytest

from conftest import NetworkBlockedError


@pytest.mark.parametrize("host", ["example.org", "192.0.2.1", "2001:db8::1"])
def test_other_machines_are_out_of_reach(host):
    with pytest.raises(NetworkBlockedError, match="run offline"):
        socket.create_connection((host, 80), timeout=1)
    with pytest.raises(NetworkBlockedError), socket.socket() as unconnected:
        unconnected.connect_ex((host, 80))
    with pytest.raises(NetworkBlockedError):
        socket.getaddrinfo(host, 80)


def test_this_machine_is_in_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost", port), timeout=5) as client:
            client.sendall(b"x")
            accepted, _ = server.accept()
            with accepted:
                assert accepted.recv(1) == b"x"


def test_processes_meet_a_dead_proxy():
    code = "import urllib.request as u; print(u.getproxies()['https'], u.proxy_bypass('localhost'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split()[0] == "http://127.0.0.1:9"
    assert urllib.request.proxy_bypass("127.0.0.1")
