# Where server-sent events begin and end in bytes. What is in them is not known here.
"""Boundaries of events (WHATWG HTML, "Parsing an event stream"): a line ends with LF, CR or CRLF, an event with an empty line.

A CR at the very end says nothing yet, since a LF may follow: it is no boundary until the next byte is there.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")


def last_boundary(data: bytes | bytearray, start: int = 0) -> int:
    """Where the last event that has surely ended ends; 0 when none has. Boundaries that begin before `start` are not seen."""
    limit = len(data) - 1 if data.endswith(b"\r") else len(data)
    # Two line ends side by side are one of these, whatever the rest of them is; CRLF alone is none.
    found = max(data.rfind(b"\n\n", start, limit), data.rfind(b"\n\r", start, limit), data.rfind(b"\r\r", start, limit))
    if found < 0:
        return 0
    end = found + 2
    return end + 1 if data[end - 1] == 13 and data[end : end + 1] == b"\n" else end


def first_boundary(data: bytes) -> int:
    """Where the first event ends; 0 when none does."""
    found = _END.search(data)
    return found.end() if found else 0


def events(whole: bytes) -> list[bytes]:
    """Whole events, each with its empty line; what is behind the last one comes last."""
    found, start = [], 0
    if b"\r" in whole:
        for match in _END.finditer(whole):
            found.append(whole[start : match.end()])
            start = match.end()
    else:  # as of every service; twice as fast
        while (end := whole.find(b"\n\n", start) + 2) > 1:
            found.append(whole[start:end])
            start = end
    if start < len(whole):
        found.append(whole[start:])
    return found


def data_of(event: bytes) -> bytes:
    """The `data` of an event, its lines joined by LF; empty when it has none."""
    return b"\n".join([line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")])
