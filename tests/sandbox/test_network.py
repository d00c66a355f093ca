"""The refusal of the network, in processes of their own: a hook of the interpreter stays until its end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from assay.sandbox.network import is_local

START = "import socket\nfrom assay.sandbox.network import network_allowed, refuse_network\nrefuse_network()\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('example.com', 80), 1)",
        "socket.create_connection(('192.0.2.1', 80), 1)",
        "socket.getaddrinfo('example.com', 80)",
        "socket.gethostbyname('example.com')",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect(('2001:db8::1', 53))",
        "import urllib.request; urllib.request.urlopen('http://example.com')",
    ],
)
def test_connections_to_other_machines_are_refused(code: str) -> None:
    assert "NetworkRefused: expected no use of the network, got a connection to" in run(code)


def test_local_sockets_and_allowed_downloads_pass() -> None:
    assert (
        run(
            "server = socket.create_server(('127.0.0.1', 0))\n"
            "socket.create_connection(server.getsockname(), 1)\n"
            "socket.create_connection(('localhost', server.getsockname()[1]), 1)\n"
            "a, b = socket.socketpair()\n"
            "with network_allowed():\n"
            "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))\n"
            "print('passed')"
        )
        == "passed\n"
        or sys.platform != "linux"
    )


def test_the_network_is_refused_again_after_a_download() -> None:
    code = "with network_allowed(): pass\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
    assert "NetworkRefused" in run(code)


@pytest.mark.parametrize(
    "address", [None, "", "localhost", "127.0.0.1", "127.8.9.1", "::1", ("::1", 1, 0, 0), "/run/x", b"\0x"]
)
def test_local_addresses(address: object) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address", ["example.com", "10.0.0.1", "0.0.0.0", ("192.0.2.1", 80), b"example.com", "localhost.evil.org"]
)
def test_addresses_of_other_machines(address: object) -> None:
    assert not is_local(address)
