# Malformed heads of requests by field sections, for HTTP/2 and HTTP/3 alike: none of them may reach an upstream.
"""`HEADS`: by name; `but`: a request for /bad with changes (hardening.md 7, 10 and 11; RFC 9113 §8.1-8.3, RFC 9114 §4)."""

from __future__ import annotations

Fields = list[tuple[bytes, bytes]]
GET: Fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/")]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
BAD = b"/bad"
GOOD: Fields = [*GET[:3], (b":path", b"/good")]


def but(base: Fields = GET, *extra: tuple[bytes, bytes], **changes: bytes | None) -> Fields:
    """A request for /bad with pseudo-headers changed or (None) left out, and more fields behind."""
    values: dict[bytes, bytes | None] = {**dict(base), b":path": BAD}
    values.update({b":" + name.encode(): value for name, value in changes.items()})
    return [*((name, value) for name, value in values.items() if value is not None), *extra]


LATE: Fields = [*but(path=None), (b"x", b"y"), (b":path", BAD)]
HEADS: dict[str, Fields] = {
    "no path": but(path=None),
    "no method": but(method=None),
    "no scheme": but(scheme=None),
    "no authority": but(authority=None),
    "empty path": but(path=b""),
    "path without slash": but(path=b"bad"),
    "absolute path": but(path=b"https://localhost/bad"),
    "star on GET": but(path=b"*"),
    "two paths": [*but(), (b":path", BAD)],
    "two methods": [(b":method", b"GET"), *but()],
    "two authorities": [*but(), (b":authority", b"other")],
    "two schemes": [*but(), (b":scheme", b"http")],
    "late pseudo-header": LATE,
    "late, doubled": [*but(), (b"x", b"y"), (b":path", b"/other")],
    "unknown pseudo-header": [*but(), (b":foo", b"bar")],
    "status": [*but(), (b":status", b"200")],
    "protocol without extended CONNECT": [*but(method=b"CONNECT"), (b":protocol", b"websocket")],
    "empty name": but(GET, (b"", b"x")),
    "upper case": but(GET, (b"X-Foo", b"bar")),
    "space in a name": but(GET, (b"x foo", b"bar")),
    "colon in a name": but(GET, (b"x:foo", b"bar")),
    "CR LF in a name": but(GET, (b"x\r\nfoo", b"bar")),
    "NUL in a name": but(GET, (b"x\x00foo", b"bar")),
    "high byte in a name": but(GET, (b"x\xe9", b"bar")),
    "underscore in a name": but(GET, (b"x_forwarded_for", b"1.2.3.4")),
    "CR LF in a value": but(GET, (b"x", b"y\r\nhost: evil")),
    "LF in a value": but(GET, (b"x", b"y\nz")),
    "CR in a value": but(GET, (b"x", b"y\rz")),
    "NUL in a value": but(GET, (b"x", b"y\x00z")),
    "space before a value": but(GET, (b"x", b" y")),
    "space behind a value": but(GET, (b"x", b"y ")),
    "tab before a value": but(GET, (b"x", b"\ty")),
    "CR LF in the path": but(path=b"/bad HTTP/1.1\r\nhost: evil\r\n\r\n"),
    "space in the path": but(path=b"/bad x"),
    "NUL in the path": but(path=b"/bad\x00"),
    "CR LF in the method": but(method=b"GET / HTTP/1.1\r\nx: y\r\n"),
    "space in the method": but(method=b"GET /other"),
    "empty method": but(method=b""),
    "CR LF in the authority": but(authority=b"localhost\r\nx: y"),
    "space in the authority": but(authority=b"localhost x"),
    "userinfo in the authority": but(authority=b"user@localhost"),
    "path in the authority": but(authority=b"localhost/x"),
    "two names in the authority": but(authority=b"localhost,other"),
    "zone in the authority": but(authority=b"[fe80::1%x]"),
    "empty authority": but(authority=b""),
    "CR LF in the scheme": but(scheme=b"https\r\nx: y"),
    "other scheme": but(scheme=b"ftp"),
    "Host differs": but(GET, (b"host", b"other")),
    "Host differs in the port": but(GET, (b"host", b"localhost:444")),
    "Host empty": but(GET, (b"host", b"")),
    "two Hosts": but(GET, (b"host", b"localhost"), (b"host", b"localhost")),
    "two Hosts, no authority": but(GET, (b"host", b"localhost"), (b"host", b"other"), authority=None),
    "transfer-encoding": but(GET, (b"transfer-encoding", b"chunked")),
    "transfer-encoding identity": but(GET, (b"transfer-encoding", b"identity")),
    "connection": but(GET, (b"connection", b"close")),
    "connection names a field": but(GET, (b"connection", b"x-foo"), (b"x-foo", b"bar")),
    "keep-alive": but(GET, (b"keep-alive", b"timeout=5")),
    "proxy-connection": but(GET, (b"proxy-connection", b"keep-alive")),
    "upgrade": but(GET, (b"upgrade", b"websocket")),
    "te gzip": but(GET, (b"te", b"gzip")),
    "te trailers, gzip": but(GET, (b"te", b"trailers, gzip")),
    "TRACE": but(method=b"TRACE"),
    "CONNECT": [(b":method", b"CONNECT"), (b":authority", b"localhost:443")],
    "CONNECT with a path": but(method=b"CONNECT"),
    "expect": but(GET, (b"expect", b"foo")),
    "expect, the first unknown": but(GET, (b"expect", b"foo"), (b"expect", b"100-continue")),
    "content-length of letters": but(GET, (b"content-length", b"x")),
    "content-length with plus": but(GET, (b"content-length", b"+0")),
    "content-length empty": but(GET, (b"content-length", b"")),
    "content-length, and the end": but(GET, (b"content-length", b"5")),
    "content-length twice": but(GET, (b"content-length", b"0"), (b"content-length", b"0")),
    "content-length list": but(GET, (b"content-length", b"0, 0")),
    "content-length overflow": but(GET, (b"content-length", b"18446744073709551616")),
    **{f"path {path!r}": but(path=path) for path in (
        b"/bad/../x", b"/bad/%2e%2e/x", b"/bad//x", b"//other/bad", b"/bad%2fx", b"/bad%5cx", b"/bad\\x", b"/bad%00", b"/bad#x",
        b"/bad%0d%0a", b"/bad%zz", b"/bad/.", b"/bad\x7f",
    )},
    "URL too long": but(path=b"/bad" + b"x" * 16 * 1024),
    "head too large": but(GET, *[(b"x-%d" % at, b"y" * 4000) for at in range(9)]),
    "too many fields": but(GET, *[(b"x-%d" % at, b"y") for at in range(101)]),
    "far too many fields": but(GET, *[(b"x", b"y")] * 1000),
}  # fmt: skip
