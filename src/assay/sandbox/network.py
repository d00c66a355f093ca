"""Refusal of the network, outside of assay's own downloads of a given hub id or address."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from assay.core.errors import UnusableInput
from assay.sandbox import phases

ADDRESS_ARGUMENT = {  # event of the interpreter -> position of the address or host among its arguments
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.getnameinfo": 0,
}
LOCAL_NAMES = {"", "localhost", "localhost.localdomain", "ip6-localhost"}


class NetworkRefused(UnusableInput):
    """Attempt of a foreign file to use the network."""


@dataclass
class _Gate:
    """Number of downloads in progress. A hook of the interpreter stays until its end, so this state does too."""

    installed: bool = False
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_GATE = _Gate()


def refuse_network() -> None:
    """Refuse connections and name look-ups of this process from now on, except to this machine."""
    if not _GATE.installed:
        _GATE.installed = True
        sys.addaudithook(_check)


@contextmanager
def network_allowed(name: str = "downloading") -> Iterator[None]:
    """Allow the network for a download that the user asked for. All threads are included.

    Args:
        name: Name of the download.
    """
    with _GATE.lock:
        _GATE.open += 1
    try:
        with phases.waiting(name):
            yield
    finally:
        with _GATE.lock:
            _GATE.open -= 1


def allow_network() -> None:
    """Allow the network for the rest of this process, for the driver of a cluster."""
    with _GATE.lock:
        _GATE.open += 1


def is_local(address: Any) -> bool:
    """Return whether an address of a socket, or a host name, is on this machine."""
    host = address[0] if isinstance(address, tuple) and address else address
    if host is None:
        return True
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    if not isinstance(host, str):
        return True  # neither IPv4 nor IPv6, as the numbers of netlink
    if not isinstance(address, tuple) and host.startswith(("/", "\0")):
        return True  # path of a local socket
    if host.lower() in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    position = ADDRESS_ARGUMENT.get(event)
    if position is None or _GATE.open:
        return
    address = arguments[position] if len(arguments) > position else None
    family = getattr(arguments[0], "family", None)
    if family is not None and family not in (socket.AF_INET, socket.AF_INET6):
        return
    if not is_local(address):
        host = address[0] if isinstance(address, tuple) else address
        raise NetworkRefused(
            f"expected no use of the network, got a connection to {host!r}. Fix: assay is offline unless a hub id or "
            "an address is given; remove the file or setting that names that host."
        )
