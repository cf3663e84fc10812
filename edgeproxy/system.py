# What the system around the process grants and wants to know: open files, and systemd's readiness protocol.
"""RLIMIT_NOFILE and sd_notify(3)."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeproxy.config.model import Config

_BESIDE: Final = 128  # descriptors of a worker that are no connections: sockets, log, loop, certificates being read
_MOST: Final = 1 << 20  # some containers grant a billion, and then whoever walks over all of them takes minutes


def needed_open_files(config: Config) -> int:
    """Descriptors that one worker may come to need."""
    return config.client.max_connections + sum(u.max_connections for u in config.upstreams.values()) + _BESIDE


def raise_open_files(config: Config, warn: Callable[[str], None]) -> None:
    """Raises the soft limit to the hard one; warns when even that is less than the configuration can need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < limit:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):  # a sandbox may forbid it
            limit = soft
    needed = needed_open_files(config)
    if limit < needed:
        warn(
            f"warning: a worker may need {needed} open files (client.max_connections and the upstreams' together), the "
            f"limit is {limit}; raise it (LimitNOFILE= in systemd, ulimit -n) or lower client.max_connections"
        )


def notify(state: str) -> None:
    """Tells systemd, where it started us with Type=notify; else nothing."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address)
    except OSError:
        pass  # nobody to tell; the service goes on
