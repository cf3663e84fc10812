# What a node makes of entries in the shared list that it did not write: nothing that harms it.
from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.blocklist import Shared
from edgeproxy.blockshare import SharedList
from edgeproxy.state.redis_batch import Names

THEIRS = 5_000_000
GOOD = b'65000000:[1.5,"why"]'


class Store:
    """A server that says what it is told to say."""

    names = Names("edge:")

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    def ask(self, _key: bytes, _words: Any, done: Any) -> None:
        done(self._reply)


def heard(*entries: bytes) -> Shared | None:
    found: list[Shared | None] = []
    store: Any = Store([b"name", b"7", b"%d" % THEIRS, *entries])
    SharedList(store, lambda: 100.0).sync({}, b"", b"", found.append)
    return found[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"ip:192.0.2.2", b'65000000x:[1.5,"why"]'), (b"ip:192.0.2.2", b'%b:[1.5,"why"]' % (b"9" * 5000)),
        (b"ip:192.0.2.2", b'%b:[1.5,"why"]' % (b"9" * 400)), (b"ip:192.0.2.2", b"65000000:[1.5"),
        (b"ip:192.0.2.2", b'65000000:[1.5,"\\u001b[2J"]'), (b"ip:192.0.2.2", b'65000000:[1.5,"%b"]' % (b"x" * 201)),
        (b"later:x", GOOD), (b"\xff\xfe", b"\xff:\xff"), (b"", b""),
    ],
)  # fmt: skip
def test_entries_that_no_node_writes_are_passed_over(name: bytes, value: bytes) -> None:
    shared = heard(name, value, b"ip:192.0.2.1", GOOD)
    assert shared is not None and shared.blocks is not None
    assert [(each.value, each.until, each.reason) for each in shared.blocks] == [("192.0.2.1", 160.0, "why")]
