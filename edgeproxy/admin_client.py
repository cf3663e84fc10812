# How commands reach a running edge: its admin address, from the configuration or as it was said. What is asked is not known here.
"""`Admin`: JSON over HTTP/1.1 to a TCP address or a Unix socket; one connection for each question."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

from edgeproxy.config.names import Address, address
from edgeproxy.config.problems import ConfigError, Invalid

_TIMEOUT: Final = 15.0  # seconds
_MOST: Final = 32 << 20  # bytes of an answer
_WILD: Final = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class AdminError(Exception):
    """The edge was not reached, or refused; the message says why and what to do."""


class _Unix(http.client.HTTPConnection):
    """Over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)


class Admin:
    """See the module."""

    def __init__(self, where: Address) -> None:
        self._where = where

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """The JSON of an answer. Raises: AdminError."""
        where = self._where
        if where.path is not None:
            connection: http.client.HTTPConnection = _Unix(where.path)
        else:
            connection = http.client.HTTPConnection(_WILD.get(where.host, where.host or ""), where.port, timeout=_TIMEOUT)
        body = None if content is None else json.dumps(content).encode()
        try:
            connection.request(method, path, body, {"content-type": "application/json"} if body is not None else {})
            answer = connection.getresponse()
            raw = answer.read(_MOST)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AdminError(
                f"no edge answers at its admin address {where} ({reason}): is it running, with this 'listen.admin'?"
            ) from None
        finally:
            connection.close()
        try:
            said = json.loads(raw)
        except ValueError:
            raise AdminError(f"what answers at {where} is no edge, or an older one ({answer.status})") from None
        if answer.status != 200:
            raise AdminError(str(said.get("error", answer.status)) if isinstance(said, dict) else str(answer.status))
        return said


def reach(config: Path | None, admin: str | None) -> Admin:
    """The edge at an address, or of a configuration, or at the default address. Raises: AdminError."""
    if admin is not None:
        try:
            return Admin(address(admin.removeprefix("http://").rstrip("/")))
        except Invalid as error:
            raise AdminError(f"--admin: {error.message} ({error.hint})") from None
    if config is None:
        return Admin(Address("127.0.0.1", 9180))
    from edgeproxy.config.load import load

    try:
        where = load(config).listen.admin
    except ConfigError as error:
        raise AdminError(str(error)) from None
    if where is None:
        raise AdminError(f"{config}: 'listen.admin' is null: an edge without an admin address cannot be asked or told anything")
    return Admin(where)
