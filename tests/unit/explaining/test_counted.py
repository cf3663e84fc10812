# Which counters a question is about: the same that the gateway charges, or looking them up would show others' numbers.
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit import test_admission, test_keying

from edgeproxy.explaining.counted import Counted
from edgeproxy.explaining.desk import Desk
from edgeproxy.explaining.question import Unclear
from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.ports import Admitted, Charge, Level


class Charged(EmbeddedStore):
    """Remembers what it was asked for."""

    charges: list[Charge]

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        self.charges += charges
        super().admit(charges, lease, done)


def charged() -> Charged:
    store = Charged()
    store.charges = []
    return store


def asked(desk: Desk, **question: Any) -> Counted:
    return desk.counted(json.dumps(question).encode())


LIMITS: list[dict[str, Any]] = [
    {"name": "per-ip", "requests": 10},
    {"name": "tenant", "requests": 10, "key": ['http.request.headers["x-tenant"][0]', "http.host"], "mode": "log"},
    {"name": "paths", "requests": 10, "key": "http.request.uri.path", "expression": 'starts_with(http.request.uri.path, "/p")'},
    {"name": "named", "requests": 10, "named": True},
    {"name": "at-once", "concurrent": 10, "key": "http.request.method"},
    {"name": "tokens", "tokens": 10_000},
]
RULE = """
  - {id: vip, expression: 'http.request.uri.path eq "/p/vip"', action: set, limits: [named]}
  - {id: free, expression: 'http.request.uri.path eq "/free"', action: skip, skip: {stages: [limits]}}
  - {id: no, expression: 'http.request.uri.path eq "/no"', action: block}
"""


@pytest.mark.parametrize(("path", "names"), [
    ("/", {"per-ip", "tenant", "at-once"}), ("/p", {"per-ip", "tenant", "paths", "at-once"}),
    ("/p/vip", {"per-ip", "tenant", "paths", "named", "at-once"}), ("/free", set()), ("/no", set()),
])  # fmt: skip
def test_a_requests_counters_are_those_that_are_charged(tmp_path: Path, path: str, names: set[str]) -> None:
    made = test_admission.stand(tmp_path, *LIMITS, rules=RULE)
    made.gateway.store = store = charged()
    test_admission.ask(made, path.encode(), b"X-Tenant: acme\r\n")
    request = {"url": f"https://localhost{path}", "headers": {"X-Tenant": "acme"}, "client": "192.0.2.1", "http": "1.1"}
    desk = Desk(made.snapshot.config)
    counted = asked(desk, request=request)
    assert {limit.label for limit, _ in counted.limits} == names
    assert {charge.key for charge in counted.charges} == {charge.key for charge in store.charges}
    assert bool(counted.says) == (not names)
    if names:
        assert [limit.name for limit, _ in asked(desk, request=request, limit="tenant").limits] == ["tenant"]
        levels = tuple(Level(3, 1_500_000, 0) for _ in names)
        shown = counted.shown(levels)["limits"]
        assert (shown[0]["limit"], shown[0]["remaining"], shown[0]["reset"]) == ("per-ip", 3, 1.5)


def test_keys(tmp_path: Path) -> None:
    made = test_keying.stand(tmp_path)
    made.gateway.store = store = charged()
    test_keying.post(made, "budget")
    desk, key = Desk(made.snapshot.config), f"ep-{test_keying.KEYS['budget'].id}"
    counted = asked(desk, key=key)
    assert {limit.label for limit, _ in counted.limits} == {"mine", "budget.day"}
    assert {charge.key for charge in counted.charges} == {charge.key for charge in store.charges}
    chat = {"url": "https://localhost/v1/chat/completions", "method": "POST"}
    assert {charge.key for charge in asked(desk, key=key, request=chat).charges} == {charge.key for charge in store.charges}
    whole = {**chat, "headers": {"Authorization": f"Bearer {test_keying.KEYS['budget'].text}"}}
    assert {charge.key for charge in asked(desk, request=whole).charges} == {charge.key for charge in store.charges}
    assert asked(desk, key=f"ep-{test_keying.KEYS['plain'].id}").limits == []
    assert asked(desk, request=chat).says  # no key, no limits
    assert [limit.label for limit, _ in asked(desk, key=key, limit="budget.day").limits] == ["budget.day"]


def test_limits_that_need_a_request(tmp_path: Path) -> None:
    limits = [{"name": "per-ip", "requests": 1}, {"name": "mine", "requests": 2, "key": "edge.key.id"}]
    made = test_keying.stand(tmp_path, limits=limits)
    counted = asked(Desk(made.snapshot.config), key=test_keying.KEYS["plain"].id)
    assert ([limit.label for limit, _ in counted.limits], counted.left_out) == (["mine"], ["per-ip"])


@pytest.mark.parametrize("content", [
    b"", b"[]", b"{}", b'{"key": 1}', b'{"key": "ep-AAAAAAAA"}', b'{"request": {}}', b'{"request": 1}', b'{"more": 1}',
    b'{"request": {"url": "https://localhost/"}, "limit": "none"}', b"[" * 100_000,
])  # fmt: skip
def test_what_is_not_understood(tmp_path: Path, content: bytes) -> None:
    made = test_keying.stand(tmp_path)
    with pytest.raises(Unclear):
        Desk(made.snapshot.config).counted(content)
