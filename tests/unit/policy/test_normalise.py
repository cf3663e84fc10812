# A path that two decoders could read differently must not pass.
"""policy/normalise.py."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy.normalise import path_problem

FINE = [
    b"/", b"/v1/chat/completions", b"/a/b/", b"/a.b/c.d", b"/a..b", b"/a/...", b"/...", b"/.well-known/x", b"/a/.hidden",
    b"/a%20b", b"/%C3%A4", b"/a;b=c", b"/a:b@c", b"/~u", b"/a?b=c&d=e", b"/a?x=//", b"/a?x=/../y", b"/a?x=%2f%00", b"/a?",
    b"/a?b?c", b"/a+b", b"/a,b", b"/a'b", b"/(a)", b"/a*",
]  # fmt: skip
REFUSED = [
    b"/a/%2e%2e%2e", b"/a%2Eb", b"/%761/x", b"/v1%2Fx", b"/a%2Db", b"/%7Eu", b"/a%5Fb", b"/%41", b"/%30",
    b"/.", b"/..", b"/./", b"/../", b"/a/.", b"/a/..", b"/a/./b", b"/a/../b", b"/%2e", b"/%2E%2e", b"/a/%2e./b", b"/a/.%2e",
    b"/..;", b"/..;/", b"/.;a=b/c", b"/%2e%2e;/", b"//", b"//a", b"/a//b", b"/a//", b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a%5Cb",
    b"/a\\b", b"/\\a", b"/a%00", b"/a%0a", b"/a%0D", b"/a%1f", b"/a%7f", b"/a%7F", b"/a%", b"/a%2", b"/a%g0", b"/a%0g", b"/a#b",
    b"/a?b#c", b"/a b", b"/a?b c", b"/a\x00", b"/a?\x00", b"/a\x7f", b"/a?\x7f", b"/a\t", b"/a\r\n", b"/..?x", b"/.?x", b"/a\n",
]  # fmt: skip


@pytest.mark.parametrize("target", FINE)
def test_fine(target: bytes) -> None:
    assert path_problem(target) is None


@pytest.mark.parametrize("target", REFUSED)
def test_refused(target: bytes) -> None:
    problem = path_problem(target)
    assert problem is not None
    assert problem.startswith("the ")


pieces = st.sampled_from([
    b"/", b"/", b".", b"..", b"%2e", b"%2E", b"%2f", b"%2F", b"%5c", b"\\", b"%", b"%25", b"%252e", b"%00", b"?", b"#", b";",
    b"a",
    b" ", b"\x00", b"\x7f", b"\xe4", b"%C3%A4", b"//", b"%0d%0a", b"%20",
])  # fmt: skip


@settings(max_examples=1500)
@given(st.lists(pieces, max_size=10).map(b"".join) | st.binary(max_size=20))
def test_what_passes_means_one_thing(tail: bytes) -> None:
    """However a server behind us decodes and normalises it, the path it acts on is the path that was routed."""
    target = b"/" + tail
    if path_problem(target) is not None:
        return
    path = target.partition(b"?")[0]
    decoded = unquote_to_bytes(path)
    assert decoded.count(b"/") == path.count(b"/"), "no slash comes out of an escape"
    assert b"\\" not in decoded
    assert all(byte >= 0x20 and byte != 0x7F for byte in decoded)
    for reading in (path, decoded):
        normal = posixpath.normpath(reading)
        assert normal == (reading.rstrip(b"/") or b"/")
    without_parameters = b"/".join(segment.partition(b";")[0] for segment in decoded.split(b"/"))
    assert not {b".", b".."} & set(without_parameters.split(b"/"))
    assert all(byte > 0x20 and byte not in b"\x7f#" for byte in target), "it is safe in a request line"
