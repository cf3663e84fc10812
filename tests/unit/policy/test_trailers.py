# What may stand behind a body: nothing that a later hop could take for a header that was checked.
"""`policy.headers.clean_trailers` and the fields only trusted proxies may send."""

from __future__ import annotations

import pytest
from support.pipeline import Stand

from edgeproxy.policy.headers import clean_trailers


@pytest.mark.parametrize(
    "name",
    [b"host", b"content-length", b"transfer-encoding", b"connection", b"te", b"x-forwarded-for", b"x-forwarded-user",
     b"forwarded", b"x-real-ip", b"x-ray-id", b"authorization", b"cookie", b"set-cookie", b"content-type", b"x_y"],
)  # fmt: skip
def test_trailers_that_never_pass(name: bytes) -> None:
    assert clean_trailers([(name, b"x"), (b"x-sum", b"1")]) == [(b"x-sum", b"1")]


@pytest.mark.parametrize(
    "name",
    [b"X-Forwarded-User", b"X-Forwarded-Client-Cert", b"X-Forwarded-Prefix", b"X-Forwarded-Anything", b"Client-IP",
     b"X-Remote-Addr", b"X-Envoy-External-Address"],
)  # fmt: skip
def test_identity_fields_of_strangers_are_dropped(name: bytes) -> None:
    stand = Stand()
    stand.h1().feed(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Kept: 1\r\n" + name + b": admin\r\n\r\n")
    head = stand.pool.jobs[0].head.lower()
    assert b"admin" not in head and b"x-kept: 1" in head
