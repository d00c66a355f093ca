"""Functions that the tests of boxes run in processes of their own."""

from __future__ import annotations

import os
import time
from typing import Any


def double(number: int) -> dict[str, Any]:
    return {"number": 2 * number, "pid": os.getpid()}


def abort() -> dict[str, Any]:
    os.abort()


def leave() -> dict[str, Any]:
    os._exit(1)


def hang() -> dict[str, Any]:
    from assay.sandbox.phases import reading

    with reading("reading m.onnx"):
        time.sleep(60)
    return {}


def eat() -> dict[str, Any]:
    content = bytearray(2**29)
    time.sleep(60)
    return {"size": len(content)}


def connect() -> dict[str, Any]:
    import socket

    try:
        socket.create_connection(("192.0.2.1", 80), 1)
    except Exception as error:
        return {"error": type(error).__name__}
    return {}
