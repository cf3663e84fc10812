# Reply heads that llhttp read and found valid, so that the same bytes need not be read again; it never judges by itself.
"""Heads that come again from one target (compare `listen/repeat.py`).

A server repeats its heads byte for byte, but for the digits of Content-Length and, once a second, the Date. A reply
that arrives whole behind such a head costs a search and a dictionary look-up. Whatever differs in one byte, is not
whole or has more behind it goes to llhttp as if this file were not there.
"""

from __future__ import annotations

from edgeproxy.message import Headers

_MAX_HEAD = 4 * 1024  # longer ones are not kept
_MAX_KEPT = 32  # heads a target; then they are learnt anew
_MAX_DIGITS = 9
_SPELLINGS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_TRIES = 16  # heads learnt in a row that did not come again
_REST = 512  # replies that are not looked at after so many


class KnownHead:
    """What a head came to.

    Attributes:
        kept: see `ReplyReader`.
        prefix, suffix: its bytes before and behind the digits of Content-Length; set by `learn`.
    """

    __slots__ = ("fields", "kept", "prefix", "status", "stream", "suffix")

    def __init__(self, status: int, fields: Headers, stream: bool, kept: float | None) -> None:
        self.status = status
        self.fields = fields
        self.stream = stream
        self.kept = kept
        self.prefix = self.suffix = b""


class KnownHeads:
    """The heads of one target, by their bytes without the digits of Content-Length."""

    __slots__ = ("_fruitless", "_heads", "_last", "_name", "_rest")

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self._last: KnownHead | None = None  # the one that came last: mostly it comes again
        self._name = _SPELLINGS[0]  # as the server writes it
        self._fruitless = 0
        self._rest = 0

    def match(self, raw: bytes) -> tuple[KnownHead, bytes] | None:
        """The known head of a read, and its content, when the read is one whole reply and nothing more."""
        if self._rest:
            self._rest -= 1
            return None
        known, stop = self._last, 0
        if known is not None and raw.startswith(known.prefix):
            at = len(known.prefix)
            stop = raw.find(b"\r", at, at + _MAX_DIGITS + 1)
        if known is None or stop <= 0 or not raw.startswith(known.suffix, stop):
            known = self._find(raw)
            if known is None:
                return None
            stop = raw.find(b"\r", len(known.prefix))
        digits, end = raw[len(known.prefix) : stop], stop + len(known.suffix)
        if not digits.isdigit() or len(raw) != end + int(digits):
            return None
        self._fruitless = 0
        return known, raw[end:]

    def _find(self, raw: bytes) -> KnownHead | None:
        """The known head that `raw` begins with, but for the digits."""
        name = self._name
        end = raw.find(b"\r\n\r\n", 0, _MAX_HEAD) + 4
        at = raw.find(name, 0, end)
        if at < 0:
            return None
        at += len(name)
        stop = raw.find(b"\r", at, at + _MAX_DIGITS + 1)
        known = self._heads.get(raw[:at] + raw[stop:end])
        if known is not None:
            self._last = known
        return known

    def learn(self, raw: bytes, length: int, known: KnownHead) -> None:
        """Keep a head.

        Args:
            raw: a read that llhttp took for exactly one reply, which let the connection be used again.
            length: of its content, by Content-Length.
        """
        if self._rest:
            return
        end = raw.find(b"\r\n\r\n", 0, _MAX_HEAD) + 4
        if end < 4 or len(raw) != end + length:
            return
        for name in _SPELLINGS:
            at = raw.find(name, 0, end)
            if at >= 0:
                break
        else:
            return
        at += len(name)
        stop = raw.find(b"\r", at, at + _MAX_DIGITS + 1)
        digits = raw[at:stop]
        if stop < 0 or not digits.isdigit() or int(digits) != length:
            return
        self._fruitless += 1
        if self._fruitless > _TRIES:
            # Each of this server's heads is another one (an id in it): looking for them is in vain.
            self._fruitless, self._rest = 0, _REST
            self._last = None
            self._heads.clear()
            return
        if len(self._heads) >= _MAX_KEPT or name is not self._name:
            self._heads.clear()  # what is kept was all cut in the same way
        self._name = name
        known.prefix, known.suffix = raw[:at], raw[stop:end]
        self._heads[known.prefix + known.suffix] = self._last = known
