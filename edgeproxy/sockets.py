# Listening sockets are made here, before anything forks; who accepts from them is decided elsewhere.
"""Binding the configured addresses: one SO_REUSEPORT socket per worker slot, Unix paths shared by all slots; for HTTP/3 a
UDP socket beside each TCP socket of https.

Each error names the address and what to do about it (BindError). Sockets are non-blocking and listening.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeproxy import datagrams

if TYPE_CHECKING:
    from edgeproxy.config.model import Address

BACKLOG: Final = 4096  # the kernel cuts it to net.core.somaxconn
_PORT_ATTEMPTS: Final = 20  # for port 0: the system's choice for TCP may be taken for UDP
_HINTS: Final = {
    errno.EADDRINUSE: "another process listens there: stop it (`ss -ltnp` shows which), or choose another port",
    errno.EACCES: "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE (the shipped systemd unit has it)",
    errno.EADDRNOTAVAIL: "this machine has no such address: `ip addr` shows those it has; 0.0.0.0 means all",
    errno.EAFNOSUPPORT: "this machine has no IPv6: use an IPv4 address",
    errno.ENOENT: "the directory of that path does not exist: create it",
}


_UDP_TAKEN: Final = (
    "another process has that UDP port: stop it (`ss -lunp` shows which), choose another port, "
    "or go without HTTP/3 (listen.protocols: [h1, h2])"
)


class BindError(Exception):
    """An address that can't be listened on; the text says which, why and what to do."""


@dataclass(slots=True)
class Slot:
    """What one worker listens on."""

    https: list[socket.socket] = field(default_factory=list)
    http: list[socket.socket] = field(default_factory=list)
    quic: list[socket.socket] = field(default_factory=list)  # UDP, at the addresses of https

    @property
    def sockets(self) -> list[socket.socket]:
        return self.https + self.http + self.quic

    def own(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """Those TCP ones that only this slot has (https, http): a shared Unix socket needs no substitute for a dead worker."""
        return _tcp_only(self.https), _tcp_only(self.http)


@dataclass(slots=True)
class Listeners:
    """Everything the supervisor keeps open. ``served`` is what to tell people, with real port numbers."""

    slots: list[Slot]
    admin: socket.socket | None = None
    served: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Closes this process's copies and removes Unix socket files."""
        self.close_traffic()
        if self.admin is not None:
            self.admin.close()
        for path in self.paths:
            Path(path).unlink(missing_ok=True)

    def close_traffic(self) -> None:
        for slot in self.slots:
            for sock in slot.sockets:
                sock.close()


class Reports:
    """The sockets on which control hears from workers, in a directory that only this user can enter (mkdtemp: 0700).

    Attributes:
        socket, path: for reports.
        store, store_path: for what limits count, where several workers count together.
    """

    __slots__ = ("_directory", "path", "socket", "store", "store_path")

    def __init__(self) -> None:
        # The path of a Unix socket has 107 bytes at most; some TMPDIR alone are longer.
        base = tempfile.gettempdir()
        self._directory = tempfile.mkdtemp(prefix="edgeproxy-", dir=base if len(base) < 80 else "/tmp")  # noqa: S108
        self.path, self.store_path = f"{self._directory}/control", f"{self._directory}/store"
        self.socket, self.store = _private(self.path), _private(self.store_path)

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Both."""
        return self.socket, self.store

    def close(self) -> None:
        """Closes them and removes the directory."""
        for sock in self.sockets:
            sock.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _private(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind(path)
    made.listen(BACKLOG)
    return made


def listen(
    https: Sequence[Address], http: Sequence[Address], admin: Address | None, slots: int, *, quic: bool = False
) -> Listeners:
    """Binds everything for ``slots`` workers or nothing; with ``quic`` also UDP for https. Raises BindError."""
    if quic and slots > datagrams.MAX_SEATS:
        raise BindError(f"HTTP/3 has room for {datagrams.MAX_SEATS} workers, not {slots}; use fewer, or protocols: [h1, h2]")
    made = Listeners([Slot() for _ in range(slots)])
    try:
        for scheme, addresses in (("https", https), ("http", http)):
            for address in addresses:
                udp = quic and scheme == "https" and address.path is None
                streams, packets, shown = _bind_slots(address, slots, made.paths, udp=udp)
                for slot, sock in zip(made.slots, streams, strict=True):
                    getattr(slot, scheme).append(sock)
                for slot, sock in zip(made.slots, packets, strict=udp):
                    slot.quic.append(sock)
                made.served.append(f"{scheme}://{shown}" if address.path is None else f"{scheme} on {shown}")
                if udp:
                    made.served.append(f"h3 on {shown}/udp")
        if admin is not None:
            made.admin, shown = _bind_one(admin, made.paths)
            made.served.append(f"admin http://{shown}" if admin.path is None else f"admin on {shown}")
    except BindError:
        made.close()
        raise
    return made


def _bind_slots(
    address: Address, slots: int, paths: list[str], *, udp: bool
) -> tuple[list[socket.socket], list[socket.socket], str]:
    """A listening socket for each slot, a UDP socket for each where wanted, and the address to tell people."""
    if address.path is not None:
        first, shown = _bind_one(address, paths)
        return [first, *(first.dup() for _ in range(slots - 1))], [], shown
    for attempt in range(_PORT_ATTEMPTS):
        streams = _bind_tcp(address, slots)
        shown = _shown(streams[0])
        if not udp:
            return streams, [], shown
        where = streams[0].getsockname()
        try:
            packets = datagrams.bind(streams[0].family, where, slots, both_families=address.host is None)
        except OSError as e:
            for sock in streams:
                sock.close()
            taken = e.errno == errno.EADDRINUSE
            if not taken or address.port != 0 or attempt + 1 == _PORT_ATTEMPTS:
                raise _explain(f"{shown}/udp", e, _UDP_TAKEN if taken else "") from e
        else:
            return streams, packets, shown
    raise AssertionError("not reached")


def _bind_tcp(address: Address, slots: int) -> list[socket.socket]:
    name = str(address)
    family, where = _resolve(address, name)
    sockets: list[socket.socket] = []
    try:
        # SO_REUSEPORT lets a second edge of the same user share the port in silence, and each would get half of the
        # connections. A bind without it finds that out.
        if where[1]:
            _tcp(address, family, where, reuse_port=False).close()
        for _ in range(slots):
            sock = _tcp(address, family, where, reuse_port=True)
            sockets.append(sock)
            where = sock.getsockname()  # port 0 is chosen once
        for sock in sockets:
            sock.listen(BACKLOG)
    except OSError as e:
        for sock in sockets:
            sock.close()
        raise _explain(name, e) from e
    return sockets


def _bind_one(address: Address, paths: list[str]) -> tuple[socket.socket, str]:
    name = str(address)
    sock = None
    try:
        if address.path is not None:
            sock = _unix(address.path, paths)
        else:
            family, where = _resolve(address, name)
            sock = _tcp(address, family, where, reuse_port=False)
        sock.listen(BACKLOG)
    except OSError as e:
        if sock is not None:
            sock.close()
        raise _explain(name, e) from e
    return sock, address.path or _shown(sock)


def _tcp(address: Address, family: int, where: tuple[Any, ...], *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it on Linux
        if family == socket.AF_INET6:
            # ":8443" means both families; "[::]:8443" means IPv6, so that it can stand beside "0.0.0.0:8443".
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host is None else 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(path: str, paths: list[str]) -> socket.socket:
    """Binds a path, in place of a socket file that a dead process left; mode 0660. Raises OSError, BindError."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    before = os.umask(0o117)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    paths.append(path)
    return sock


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"unix:{path}: this exists and is no socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)  # nobody listens any more
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _resolve(address: Address, name: str) -> tuple[int, tuple[Any, ...]]:
    if address.host is None:
        return (socket.AF_INET6, ("::", address.port)) if _has_ipv6() else (socket.AF_INET, ("0.0.0.0", address.port))
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as e:
        raise BindError(f"{name}: the host name can't be resolved ({e.strerror}); an IP address is surer") from e
    found.sort(key=lambda info: info[0] != socket.AF_INET)  # "localhost" without IPv6 in a container still works
    return found[0][0], found[0][4]


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def _tcp_only(sockets: list[socket.socket]) -> list[socket.socket]:
    return [sock for sock in sockets if sock.family != socket.AF_UNIX]


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explain(name: str, e: OSError, hint: str = "") -> BindError:
    hint = hint or _HINTS.get(e.errno or 0, "")
    return BindError(f"can't listen on {name}: {e.strerror or e}" + (f"; {hint}" if hint else ""))
