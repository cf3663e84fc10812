# Small files that are replaced as a whole: a reader sees the old one or the new one, and a secret never has a wider mode.
"""`replace` and `locked`, for files that hold keys."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: Path, content: bytes, mode: int, *, owner: tuple[int, int] | None = None, exact: bool = False) -> None:
    """Writes a whole new file beside `path` and renames it over.

    Args:
        mode: the umask can take rights away from it, unless it is `exact`.
        owner: user and group that it shall have; None: this process's own.

    Raises: OSError; then nothing has changed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            if exact:
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One writer at a time per directory, so that no two of them interleave their files."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
