# The pipeline's half of token limits: what a chat request may use is read before it is admitted, what it used as it passes.
"""`Asked` is one exchange's ask and its meter. Counting tokens itself is chat/'s business, limits are admission.py's.

Where a client's stream would not report its usage, the upstream is asked to report it, and the client never sees that.
What fails here costs neither the client its answer nor the limit its settlement: then what was set aside counts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from edgeproxy.chat.asking import MOST, Ask, read_ask, with_usage
from edgeproxy.chat.decoding import UNREAD as CODED
from edgeproxy.chat.decoding import bound, decoded, is_read
from edgeproxy.chat.stripping import MARK, UsageStripper
from edgeproxy.chat.usage import UNREAD, Meter, Usage, meter

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Reply

_log = logging.getLogger("edgeproxy")
_BATCH: Final = 8192  # bytes of a reply that are metered together: some 50 events of a chat
_BYTES: Final = 4  # of a token, where nothing is known of a body
# Who sends one of these vouches for the bytes of the body, or has coded them: they stay as they are.
_SEALS: Final = frozenset({
    b"content-digest", b"repr-digest", b"digest", b"content-md5", b"signature", b"signature-input", b"x-amz-content-sha256",
    b"content-encoding",
})  # fmt: skip
_told: Final[set[str]] = set()  # types of errors that were logged


class Asked:
    """What one exchange asks of a model, and what it used.

    Attributes:
        ask: None when the body is no request of the route's dialect, was longer than the preview, or is coded otherwise than
            chat/decoding.py reads.
    """

    __slots__ = ("_body", "_broken", "_changed", "_length", "_meter", "_scale", "_stripper", "_waiting", "_waits", "ask",
                 "dialect")  # fmt: skip

    def __init__(self, dialect: str, exchange: Exchange, content: bytes, truncated: bool, most: int) -> None:
        """Read it.

        Args:
            content: what was held of the body.
            truncated: there is more of it.
            most: bytes that are read; a coded body does not keep the loop for longer than another one.
        """
        self.dialect = dialect
        self._body = exchange.body  # not the exchange: it holds us
        self._length = exchange.request.length or 0
        self._scale = 1
        coding = _coding(exchange)
        if coding is not None:
            plain = None if truncated else decoded(content, coding)
            if plain is not None:
                content, self._length, truncated = plain, len(plain), len(plain) > most
            elif not truncated and is_read(coding):
                self._length, truncated = bound(len(content)), True  # it is broken, or as large as that
            else:
                self._scale, truncated = CODED, True
        self.ask: Ask | None = None if truncated else read_ask(dialect, content)
        self._broken = False
        self._changed = False
        self._meter: Meter | None = None
        self._stripper: UsageStripper | None = None
        self._waiting: list[bytes] = []  # of the reply, for the meter
        self._waits = 0  # bytes of that

    def reserve(self, most: int) -> int:
        """Tokens that it may use.

        Args:
            most: completion tokens of an answer, where the request sets no bound.
        """
        ask = self.ask
        if ask is None:
            return self._size() // _BYTES + most
        return ask.prompt + (ask.completion if ask.completion is not None else most * ask.choices)

    def _size(self) -> int:
        """Bytes of the request's body, as far as that is known by now; of a coded one, those that it may hold."""
        return max(self._length, self._body.received) * self._scale

    def _known(self) -> Ask:
        """What answers without a report are estimated from: of a body that could not be read, its size until now."""
        if self.ask is not None:
            return self.ask
        return Ask(None, False, True, min(MOST, self._size() // _BYTES), None, 1, hidden=True)

    def ask_for_usage(self, exchange: Exchange, content: bytes, route: Route) -> None:
        """Change the request, whose whole body was held, so that its stream reports what it used."""
        if self.ask is None or self.ask.usage_asked or not self.ask.stream or not route.asks_usage:
            return
        if any(name in _SEALS for name, _ in exchange.request.headers):
            return
        changed = with_usage(content)
        if changed is None or len(changed) > route.preview:  # who reads the body after us holds no more than that
            return
        self._changed = True
        exchange.body.restore(changed)
        request = exchange.request
        if request.length is not None:
            exchange.request = request.altered(request.target, request.headers)
            exchange.request.length = len(changed)

    def replied(self, reply: Reply) -> None:
        """The reply's head is here."""
        content_type = coded = None
        for name, value in reply.headers:
            if name == b"content-type":
                content_type = value
            elif name == b"content-encoding" and value.strip().lower() != b"identity":
                coded = value
        self._meter = meter(self.dialect, self._known(), reply.status, content_type, coded is not None)
        if self._changed and reply.stream and coded is None and 200 <= reply.status <= 299:
            self._stripper = UsageStripper()
            reply.length = None  # it may get shorter

    def take(self, data: bytes, end: bool) -> bytes:
        """Some of the reply's body on its way to the client. Returns: what goes on."""
        self._waiting.append(data)
        self._waits += len(data)
        if self._waits >= _BATCH:
            self._feed()
        stripper = self._stripper
        if stripper is None:
            return data
        held = stripper.held
        if not held and not stripper.through and data.endswith(b"\n\n") and MARK not in data:
            return data  # most chunks; as in `UsageStripper.feed`, to spare a call
        try:
            passed = stripper.feed(data)
            return passed + stripper.finish() if end else passed
        except Exception as e:
            self._stripper = None
            _tell(e)
            return held + data

    def _feed(self) -> None:
        """Let the meter see what waits for it."""
        waiting = self._waiting
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        waiting.clear()
        self._waits = 0
        if self._meter is not None:
            try:
                self._meter.feed(data)
            except Exception as e:
                self._meter = None
                self._fail(e)

    def usage(self, reached: bool) -> Usage | None:
        """What was used; None when nothing can have been. `Usage.charged` says what that costs.

        Args:
            reached: an upstream took the request.
        """
        if not reached:
            return None
        if self._waits:
            self._feed()
        if self._broken:
            return UNREAD
        try:
            measured = self._meter or Meter(None)
            measured.ask = ask = self._known()
            usage = measured.usage()
        except Exception as e:
            self._fail(e)
            return UNREAD
        if ask.background and usage.estimated and self._meter is not None:
            return usage._replace(unread=True)  # it is told to another request
        return usage

    def _fail(self, error: Exception) -> None:
        """What this exchange used will not be known."""
        self._broken = True
        _tell(error)


def _coding(exchange: Exchange) -> bytes | None:
    """The request's Content-Encoding; None where it has none."""
    found = [value for name, value in exchange.request.headers if name == b"content-encoding"]
    coding = b", ".join(found)
    return None if not found or coding.strip().lower() in {b"", b"identity"} else coding


def _tell(error: Exception) -> None:
    name = type(error).__name__
    if name not in _told:
        _told.add(name)
        _log.warning("the usage of an answer could not be read (said once): %s", name)
