# The file of secrets that challenges are made with is read here, and what is wrong with it is said without showing one.
"""`read_secrets` raises nothing: what is wrong is what it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.config.checks import Finding
from edgeproxy.config.keys_file import hide
from edgeproxy.config.problems import quote
from edgeproxy.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.config.challenge import Challenge

MIN_SECRET: Final = 32  # bytes
MAX_FILE: Final = 8192
MAX_SECRETS: Final = 4


def read_secrets(section: Challenge) -> tuple[Secret, ...] | Finding:
    """The secrets in the file that the section names (none: no file), or what is wrong."""
    if section.secret_file is None:
        return ()
    path, name = ("challenge", "secret_file"), hide(quote(str(section.secret_file)))
    try:
        with section.secret_file.open("rb") as opened:
            raw = opened.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        return Finding(path, f"{name} cannot be read: {getattr(error, 'strerror', None) or 'not a path'}")
    lines = [line.strip() for line in raw.splitlines() if line.strip()]
    if not lines or len(lines) > MAX_SECRETS or len(raw) > MAX_FILE or _short(lines):
        hint = "one to four lines of at least 32 characters, like: openssl rand -hex 32"
        return Finding(path, f"{name} holds no secret", hint)
    return tuple(Secret(line) for line in lines)


def _short(lines: Iterable[bytes]) -> bool:
    return any(len(line) < MIN_SECRET for line in lines)
