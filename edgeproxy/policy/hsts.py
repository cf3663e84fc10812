# All HSTS decisions are made here; this file knows no protocol.
"""Strict-Transport-Security (RFC 6797)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.config.model import Hsts

FIELD = b"strict-transport-security"


def compile_hsts(settings: Hsts) -> tuple[bytes, bytes] | None:
    """The one field line that every HTTPS answer carries, None when HSTS is switched off.

    It replaces whatever an upstream sends (exactly one header, RFC 6797 §7.1). Who uses it leaves it away on plain
    HTTP (§7.2) and for hosts that are IP literals (§8.1.1).
    """
    if not settings.enabled:
        return None
    value = f"max-age={int(settings.max_age)}"
    if settings.include_subdomains:
        value += "; includeSubDomains"
    if settings.preload:
        value += "; preload"
    return FIELD, value.encode("ascii")
