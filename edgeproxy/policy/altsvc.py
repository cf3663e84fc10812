# All Alt-Svc decisions are made here: who is told that the edge speaks HTTP/3 too, and where.
"""Alt-Svc (RFC 7838)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.config.model import Listen

FIELD = b"alt-svc"


def compile_alt_svc(listen: Listen) -> tuple[bytes, bytes] | None:
    """The one field line of answers over TLS by h1 and h2; None when there is no h3, or none that should be known.

    It replaces whatever an upstream sends: that would be about the upstream's ports. Who uses it leaves it away on plain
    HTTP, and over h3, where it would say what the client knows. Port 0, the system's choice, is not known before binding.
    """
    port = listen.redirect_port
    if not listen.quic or not listen.alt_svc or not port:
        return None
    return FIELD, b'h3=":%d"; ma=%d' % (port, listen.alt_svc_max_age)
