# No key of a client reaches an upstream, and the upstream's own does.
from __future__ import annotations

import pytest

from edgeproxy.config.secret import Secret
from edgeproxy.message import Headers
from edgeproxy.policy.credentials import line, swap

CLIENTS: Headers = [
    (b"accept", b"*/*"), (b"authorization", b"Bearer ep-a"), (b"x-a", b"1"), (b"x-api-key", b"ep-a"), (b"api-key", b"z"),
    (b"authorization", b"Basic eA=="), (b"x-a", b"2"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "value"), [
    ("authorization", b"Bearer sk-own"), ("x-api-key", b"sk-own"), ("api-key", b"sk-own"),
])  # fmt: skip
def test_the_upstreams_own_goes_in(header: str, value: bytes) -> None:
    before = list(CLIENTS)
    swapped = swap(CLIENTS, header.encode(), line(header, Secret(b"sk-own")))
    assert swapped == [(b"accept", b"*/*"), (b"x-a", b"1"), (b"x-a", b"2"), (header.encode(), value)]
    assert before == CLIENTS
    assert all(any(kept is each for each in CLIENTS) for kept in swapped[:-1])  # rules know their lines by identity


def test_without_one_the_clients_goes_out_all_the_same() -> None:
    assert swap(CLIENTS, None, b"") == [(b"accept", b"*/*"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert swap([], None, b"") == []
