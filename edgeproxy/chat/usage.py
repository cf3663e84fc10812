# What an answer really used, read from its bytes as they pass. Nobody waits for it, and nothing is changed by it.
"""`meter`: the right `Meter` for a reply. It is fed with the reply's body, and asked once the exchange has ended.

Reports of models are believed. What was sent after the last one, or without one, is estimated and flagged: what a model did
without showing it (hidden reasoning, what it still computed when its client left) cannot be known then.
Memory is bounded by 2 · `TAIL` and a little, whatever is sent.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from edgeproxy.chat.asking import MOST, Ask
from edgeproxy.chat.deltas import Sent
from edgeproxy.chat.reports import READERS, Report
from edgeproxy.chat.sse import data_of, events, last_boundary
from edgeproxy.chat.tokens import estimate

TAIL: Final = 65536  # bytes of a document or an event that is longer than twice as much; its report is near its end
_HEAD: Final = 1024  # bytes of the beginning of such an event; they say what it is
_FRAME: Final = 100  # tokens of JSON around the text of a reply
_BYTES: Final = 4  # of a token, where nothing is known of a body
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long
_LINE_ENDS: Final = b"\r\n"
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
_REPORTED: Final = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*\{')
_LINES: Final = (b"data", b"event", b":", b"id", b"retry", b"\xef\xbb\xbf")  # what events begin with


class Usage(NamedTuple):
    """Tokens of one exchange.

    Attributes:
        prompt: of what was sent to the model, what was cached included.
        completion: of what it answered with.
        cached: what of the prompt was read from a cache.
        total: at least the sum of prompt and completion.
        estimated: some of it was not reported by the model.
        unread: there was an answer, but nobody here can tell what it holds: the numbers are worth little.
    """

    prompt: int
    completion: int
    cached: int
    total: int
    estimated: bool
    unread: bool = False

    def charged(self, reserved: int) -> int:
        """Tokens to charge, where so many were set aside: what could not be read is not cheaper than these."""
        return max(self.total, reserved) if self.unread else self.total


NOTHING: Final = Usage(0, 0, 0, 0, estimated=False)
UNREAD: Final = Usage(0, 0, 0, 0, estimated=True, unread=True)


class Meter:
    """No reply at all, as far as it is used itself; those for replies are below.

    Attributes:
        ask: what estimates come from. It may be put in anew before the usage is asked for.
    """

    __slots__ = ("_size", "ask")

    def __init__(self, ask: Ask | None) -> None:
        self.ask = ask
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Some of the body, in order; however it is cut. Some kilobytes at once cost hardly more than a few bytes."""
        self._size += len(data)

    def usage(self) -> Usage:
        """What was used until now. It may be asked again."""
        return self._guess(None, self._size // _BYTES)

    def _guess(self, report: Report | None, sent: int) -> Usage:
        """A usage of what was reported, and of tokens that were sent since then."""
        ask = self.ask
        known = report.prompt if report is not None else None
        before = (report.completion or 0) if report is not None else 0
        if ask is not None and ask.completion is not None:
            sent = max(0, min(sent, ask.completion - before))
        prompt = known if known is not None else ask.prompt if ask is not None else 0
        completion = min(MOST, before + sent)
        cached = min(prompt, report.cached or 0) if report is not None else 0
        total = prompt + completion
        if report is None or known is None or report.begun or sent:
            return Usage(prompt, completion, cached, total, estimated=True)
        return _new(Usage, (prompt, completion, cached, max(total, report.total), False, False))


class _Unread(Meter):
    """A reply whose body says nothing: it is not of a model, or coded."""

    __slots__ = ()

    def usage(self) -> Usage:
        return super().usage()._replace(unread=self._size > 0)


class _Failed(Meter):
    """A reply that is an error: services do not charge for it."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Nothing of it counts."""

    def usage(self) -> Usage:
        return NOTHING


class _Whole(Meter):
    """A JSON document."""

    __slots__ = ("_first", "_held", "_reader")

    def __init__(self, ask: Ask | None, dialect: str) -> None:
        super().__init__(ask)
        self._first = b""  # byte that is no white space
        self._held = bytearray()
        self._reader = READERS[dialect]

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if not self._first:
            self._first = data.lstrip()[:1]
        held = self._held
        held += data
        if len(held) > 2 * TAIL:
            del held[:-TAIL]

    def usage(self) -> Usage:
        whole = self._size <= 2 * TAIL
        document = bytes(self._held if whole else self._held[-TAIL:])
        report = self._reader.of(document) if whole else self._reader.of_tail(document, event=False)
        if report is not None:
            return self._guess(report, 0)
        if not document:
            return self._guess(None, 0)
        guess = self._guess(None, max(0, estimate(document) * self._size // len(document) - _FRAME))
        # A report may lie in what was not kept, or have another shape; or this is no document of a model.
        return guess._replace(unread=not whole or self._first != b"{" or _REPORTED.search(document) is not None)


class _Stream(Meter):
    """Server-sent events."""

    __slots__ = ("_begin", "_delta", "_foreign", "_held", "_lines", "_long", "_mark", "_reader", "_report", "_sent")

    def __init__(self, ask: Ask | None, dialect: str) -> None:
        super().__init__(ask)
        self._reader = READERS[dialect]
        self._mark = self._reader.mark
        self._delta = self._reader.delta
        self._lines = self._reader.lines
        self._report: Report | None = None
        self._foreign = False  # there was something that is no event
        self._sent = Sent(self._delta)
        self._held = bytearray()  # of the event that has not ended
        self._long = 0  # bytes of that event which are no longer held
        self._begin = b""  # the first of these

    def feed(self, data: bytes) -> None:
        if self._held or not data.endswith(_ENDS):
            self._join(data)
        else:
            self._take(data)

    def usage(self) -> Usage:
        if self._held:
            # An event that never ends is dropped by clients. It was sent all the same.
            rest = bytes(self._held)
            self._held.clear()
            if self._long:
                self._long_event(rest)
            else:
                self._take(rest)
        found = self._guess(self._report, self._sent.tokens())
        foreign = self._foreign and self._report is None and not self._sent.count
        return found._replace(unread=True) if foreign else found

    def _join(self, data: bytes) -> None:
        """Bytes that do not begin or do not end with an event."""
        held = self._held
        start = max(0, len(held) - 3)
        held += data if held else data.lstrip(_LINE_ENDS)
        end = last_boundary(held, start)
        if end:
            whole = bytes(held[:end])
            held[:] = held[end:].lstrip(_LINE_ENDS)
            if self._long:
                whole = self._end_long(whole)
            if whole:
                self._take(whole)
        if len(held) > 2 * TAIL:
            if not self._long:
                self._begin = bytes(held[:_HEAD])
            self._long += len(held) - TAIL
            del held[:-TAIL]

    def _end_long(self, whole: bytes) -> bytes:
        """The end of a very long event; what follows it is returned."""
        # Its last bytes may be CR and LF, or two of them: the search may begin anywhere before.
        first = events(whole)[0]
        self._long_event(first)
        return whole[len(first) :]

    def _long_event(self, rest: bytes) -> None:
        """The event of which only the beginning and the end were kept."""
        tail = rest[-TAIL:]
        begin = self._begin + b"\n" + tail
        if self._delta in begin:
            self._sent.add(begin, self._long + len(rest))
        report = self._reader.of_tail(tail, event=True) if self._mark in tail else None
        if report is not None:
            self._reported(report)
        self._long = 0
        self._begin = b""

    def _take(self, whole: bytes) -> None:
        """Whole events. What was said before the last report is accounted for, and not looked at."""
        if b"\r" in whole:
            for event in events(whole):
                self._event(event)
            return
        report: Report | None = None
        behind, end, mark = 0, len(whole), self._mark
        while (at := whole.rfind(mark, 0, end)) >= 0:
            gap, close = whole.rfind(b"\n\n", 0, at), whole.find(b"\n\n", at)
            end, after = (gap + 2 if gap >= 0 else 0), (close + 2 if close >= 0 else len(whole))
            found = self._read(whole[end:after].lstrip(_LINE_ENDS))
            if found is None:
                continue
            if report is None:
                report, behind = found, after
            else:
                report = report._replace(prompt=found.prompt, cached=found.cached)
            if report.prompt is not None:
                break
        if report is not None:
            self._reported(report)
        if behind < len(whole):
            self._count(whole[behind:] if behind else whole)

    def _count(self, whole: bytes) -> None:
        """Whole events without a report."""
        sent = self._sent
        count = whole.count(self._delta)
        if count and len(whole) <= TAIL and whole.count(b"\n") == count * self._lines:
            sent.add_all(whole, count)  # nothing but text
        elif count or not (sent.count or self._report is not None):
            for event in events(whole):
                self._text(event.lstrip(_LINE_ENDS))

    def _event(self, event: bytes) -> None:
        """One event of any kind; there may be empty lines before it."""
        event = event.lstrip(_LINE_ENDS)
        self._text(event)
        if self._mark in event:
            report = self._read(event)
            if report is not None:
                self._reported(report)

    def _text(self, event: bytes) -> None:
        """Count an event that brings text."""
        size = len(event)
        if size > 2 * TAIL:
            event = event[:_HEAD] + b"\n" + event[-TAIL:]
        if self._delta in event:
            self._sent.add(event, size)
        elif not self._foreign and not self._sent.count:
            begin = event.lstrip()
            # A stream may have been cut in the middle of a field's name.
            self._foreign = not begin.startswith(_LINES) and not any(line.startswith(begin) for line in _LINES)

    def _read(self, event: bytes) -> Report | None:
        """The report in an event."""
        if len(event) > 2 * TAIL:
            return self._reader.of_tail(event[-TAIL:], event=True)
        return self._reader.of(data_of(event))

    def _reported(self, report: Report) -> None:
        """The newest report."""
        old = self._report
        if report.prompt is None and old is not None:
            report = report._replace(prompt=old.prompt, cached=old.cached)
        self._report = report
        self._sent = Sent(self._delta)


def meter(dialect: str, ask: Ask | None, status: int, content_type: bytes | None, coded: bool = False) -> Meter:
    """The meter for a reply, once its head is there.

    Args:
        ask: what was asked; estimates come from it, and are never above its bound.
        content_type: None when there is none; it is then read as JSON.
        coded: the body has a Content-Encoding.
    """
    if not 200 <= status <= 299:
        return _Failed(ask)
    if coded:
        return _Unread(ask)
    kind = _kind(content_type)
    if kind is None:
        return _Unread(ask)
    return kind(ask, dialect)


@lru_cache(maxsize=64)  # services write few, and write them alike
def _kind(content_type: bytes | None) -> type[_Stream | _Whole] | None:
    """Who reads such content."""
    kind = content_type.partition(b";")[0].strip().lower() if content_type is not None else b"application/json"
    if kind == b"text/event-stream":
        return _Stream
    return _Whole if kind == b"application/json" or kind.endswith(b"+json") else None
