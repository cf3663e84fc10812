# Messages that must never be understood, and what is answered to each; shared by the tests that bring them in by
# different ways (alone, behind others, in pieces).
"""Tables of malformed HTTP/1.1 requests (hardening.md 1-5, 8-11; RFC 9112)."""

from __future__ import annotations

from dataclasses import dataclass

HOST = b"Host: localhost\r\n"
BAD = {400}
CODING = {400, 501}


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        statuses: the answers that are right.
        closes: where the next message begins is unknown, so the connection must end.
        early: the fault shows in the head, so the request may come in any pieces.
    """

    name: str
    raw: bytes
    statuses: frozenset[int]
    closes: bool = True
    early: bool = True


def _cases(
    group: str, entries: dict[str, bytes], statuses: set[int], *, closes: bool = True, early: bool = True
) -> list[Case]:
    return [Case(f"{group}: {name}", raw, frozenset(statuses), closes, early) for name, raw in entries.items()]


def post(fields: bytes, body: bytes = b"hello") -> bytes:
    """A POST with these field lines beside Host."""
    return b"POST /bad HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def get(fields: bytes = b"", target: bytes = b"/bad", host: bytes = HOST) -> bytes:
    """A GET with these field lines beside Host."""
    return b"GET " + target + b" HTTP/1.1\r\n" + host + fields + b"\r\n"


def chunked(body: bytes, fields: bytes = b"") -> bytes:
    """A POST in chunks."""
    return post(b"Transfer-Encoding: chunked\r\n" + fields, body)


END = b"0\r\n\r\n"
# A second request hidden in what one reader takes for content and another for a message.
HIDDEN = b"GET /bad/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"

LENGTHS = _cases("content-length", {
    "two, equal": post(b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    "two, different": post(b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    "two, the first zero": post(b"Content-Length: 0\r\nContent-Length: 5\r\n"),
    "two, case differs": post(b"Content-Length: 5\r\ncontent-length: 5\r\n"),
    "list, equal": post(b"Content-Length: 5, 5\r\n"),
    "list, different": post(b"Content-Length: 5, 6\r\n"),
    "plus": post(b"Content-Length: +5\r\n"),
    "negative": post(b"Content-Length: -5\r\n"),
    "minus zero": post(b"Content-Length: -0\r\n", b""),
    "empty": post(b"Content-Length: \r\n"),
    "empty, no space": post(b"Content-Length:\r\n"),
    "hex": post(b"Content-Length: 0x5\r\n"),
    "underscore": post(b"Content-Length: 0_5\r\n"),
    "space inside": post(b"Content-Length: 5 5\r\n"),
    "comma behind": post(b"Content-Length: 5,\r\n"),
    "semicolon behind": post(b"Content-Length: 5;\r\n"),
    "exponent": post(b"Content-Length: 5e0\r\n"),
    "fraction": post(b"Content-Length: 5.0\r\n"),
    "quoted": post(b'Content-Length: "5"\r\n'),
    "letters": post(b"Content-Length: five\r\n"),
    "superscript digit": post(b"Content-Length: \xb2\r\n"),
    "arabic digit": post("Content-Length: ٥\r\n".encode()),
    "vertical tab": post(b"Content-Length: \x0b5\r\n"),
    "NUL behind": post(b"Content-Length: 5\x00\r\n"),
    "2^64": post(b"Content-Length: 18446744073709551616\r\n"),
    "2^64 + 5": post(b"Content-Length: 18446744073709551621\r\n"),
    "30 digits": post(b"Content-Length: " + b"9" * 30 + b"\r\n"),
    "5000 digits": post(b"Content-Length: " + b"9" * 5000 + b"\r\n"),
    "space before colon": post(b"Content-Length : 5\r\n"),
    "tab before colon": post(b"Content-Length\t: 5\r\n"),
    "folded": post(b"Content-Length:\r\n 5\r\n"),
    "folded, two digits": post(b"Content-Length: 5\r\n 0\r\n"),
    "underscore in the name": post(b"Content_Length: 5\r\nContent-Length: 5\r\n"),
}, BAD)  # fmt: skip

CODINGS = _cases("transfer-encoding", {
    "CL.TE": post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", END + HIDDEN),
    "TE.CL": post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", END + HIDDEN),
    "CL.TE, length zero": post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", END),
    "CL.TE, unknown coding": post(b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n"),
    "TE.TE": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", END),
    "TE.TE, second unknown": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", END),
    "TE.TE, first unknown": post(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", END),
    "TE.TE, second empty": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", END),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", END),
    "identity": post(b"Transfer-Encoding: identity\r\n", END),
    "identity beside length": post(b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity\r\n", END),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", END),
    "gzip": post(b"Transfer-Encoding: gzip\r\n", END),
    "unknown": post(b"Transfer-Encoding: xchunked\r\n", END),
    "prefix": post(b"Transfer-Encoding: chunke\r\n", END),
    "suffix": post(b"Transfer-Encoding: chunkedx\r\n", END),
    "quoted": post(b'Transfer-Encoding: "chunked"\r\n', END),
    "parameter": post(b"Transfer-Encoding: chunked;q=1\r\n", END),
    "comma before": post(b"Transfer-Encoding: ,chunked\r\n", END),
    "comma behind": post(b"Transfer-Encoding: chunked,\r\n", END),
    "empty": post(b"Transfer-Encoding:\r\n", END),
    "vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", END),
    "form feed behind": post(b"Transfer-Encoding: chunked\x0c\r\n", END),
    "NUL behind": post(b"Transfer-Encoding: chunked\x00\r\n", END),
    "folded": post(b"Transfer-Encoding:\r\n chunked\r\n", END),
    "folded behind length": post(b"Content-Length: 5\r\nX: y\r\n Transfer-Encoding: chunked\r\n", END),
    "space before colon": post(b"Transfer-Encoding : chunked\r\n", END),
    "space before colon, behind length": post(b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n", END),
    "space before name": post(b" Transfer-Encoding: chunked\r\n", END),
    "bare LF before": post(b"X: y\nTransfer-Encoding: chunked\r\n", END),
    "bare CR before": post(b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", END),
    "underscore": post(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n"),
    "HTTP/1.0": b"POST /bad HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + END,
    "HTTP/1.0, kept alive":
        b"POST /bad HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "GET, CL.TE": get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + END,
    "GET, TE nominated by Connection":
        get(b"Connection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n") + END,
}, CODING)  # fmt: skip

# The fault lies behind the head, in the same read.
CHUNKS = _cases("chunk", {
    "0x": chunked(b"0x5\r\nhello\r\n" + END),
    "underscore": chunked(b"0_5\r\nhello\r\n" + END),
    "plus": chunked(b"+5\r\nhello\r\n" + END),
    "minus": chunked(b"-5\r\nhello\r\n" + END),
    "space before": chunked(b" 5\r\nhello\r\n" + END),
    "tab before": chunked(b"\t5\r\nhello\r\n" + END),
    "empty size": chunked(b"\r\nhello\r\n" + END),
    "no size": chunked(b";ext\r\nhello\r\n" + END),
    "letter": chunked(b"g\r\nhello\r\n" + END),
    "17 digits": chunked(b"10000000000000005\r\nhello\r\n" + END),
    "2^64": chunked(b"10000000000000000\r\nhello\r\n" + END),
    "bare LF behind the size": chunked(b"5\nhello\r\n" + END),
    "bare CR behind the size": chunked(b"5\rhello\r\n" + END),
    "NUL behind the size": chunked(b"5\x00\r\nhello\r\n" + END),
    "bare LF behind the content": chunked(b"5\r\nhello\n" + END),
    "no CRLF behind the content": chunked(b"5\r\nhello" + END),
    "content too long": chunked(b"5\r\nhelloo\r\n" + END),
    "content too short": chunked(b"5\r\nhell\r\n" + END),
    "bare LF in an extension": chunked(b"5;a\nb\r\nhello\r\n" + END),
    "bare CR in an extension": chunked(b"5;a\rb\r\nhello\r\n" + END),
    "NUL in an extension": chunked(b"5;a\x00b\r\nhello\r\n" + END),
    "bare LF ends an extension": chunked(b"5;a\nhello\r\n" + END),
    "bare LF behind the last chunk": chunked(b"5\r\nhello\r\n0\n\n" + HIDDEN),
    "bare LF ends the trailers": chunked(b"5\r\nhello\r\n0\r\n\n" + HIDDEN),
    "trailer without colon": chunked(b"5\r\nhello\r\n0\r\nfoo\r\n\r\n"),
    "trailer with space before colon": chunked(b"5\r\nhello\r\n0\r\nfoo : bar\r\n\r\n"),
    "trailer with NUL": chunked(b"5\r\nhello\r\n0\r\nfoo: b\x00r\r\n\r\n"),
    "trailer with bare LF": chunked(b"5\r\nhello\r\n0\r\nfoo: bar\nx: y\r\n\r\n"),
    "trailer folded": chunked(b"5\r\nhello\r\n0\r\nfoo: bar\r\n x\r\n\r\n"),
}, BAD, early=False)  # fmt: skip

LINES = _cases("line", {
    "bare LF behind the request line": b"GET /bad HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF behind a field": b"GET /bad HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "bare LF everywhere": b"GET /bad HTTP/1.1\nHost: localhost\n\n",
    "bare LF ends the head": b"GET /bad HTTP/1.1\r\nHost: localhost\r\n\nGET /bad/hidden HTTP/1.1\r\n\r\n",
    "CR LF LF": b"GET /bad HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\n",
    "bare CR behind the request line": b"GET /bad HTTP/1.1\r" + HOST + b"\r\n",
    "bare CR in a value": get(b"X: a\rb\r\n"),
    "bare CR before a field": get(b"X: a\rY: b\r\n"),
    "bare CR in a name": get(b"X\rY: b\r\n"),
    "CR CR LF": get(b"X: a\r\r\n"),
    "NUL in a value": get(b"X: a\x00b\r\n"),
    "NUL in a name": get(b"X\x00: ab\r\n"),
    "NUL in the target": get(target=b"/bad\x00"),
    "NUL in the method": b"G\x00T /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "control in a value": get(b"X: a\x01b\r\n"),
    "backspace in a value": get(b"X: a\x08b\r\n"),
    "DEL in a value": get(b"X: a\x7fb\r\n"),
    "control in a name": get(b"X\x01: b\r\n"),
    "high byte in a name": get(b"X\xe9: b\r\n"),
    "space before colon": get(b"X : a\r\n"),
    "tab before colon": get(b"X\t: a\r\n"),
    "space in a name": get(b"X Y: a\r\n"),
    "Host with space before colon": get(host=b"Host : localhost\r\n"),
    "folded value": get(b"X: a\r\n b\r\n"),
    "folded with a tab": get(b"X: a\r\n\tb\r\n"),
    "folded first line": b"GET /bad HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "folded empty line": get(b"X: a\r\n \r\n"),
    "no colon": get(b"X\r\n"),
    "no name": get(b": a\r\n"),
    "parentheses in a name": get(b"X(a): b\r\n"),
    "slash in a name": get(b"X/a: b\r\n"),
    "quotes in a name": get(b'"X": b\r\n'),
    "underscore in a name": get(b"X_Forwarded_For: 1.2.3.4\r\n"),
    "underscore alone": get(b"_: 1\r\n"),
    "tab in the request line": b"GET\t/bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "space behind the version": b"GET /bad HTTP/1.1 \r\n" + HOST + b"\r\n",
    "space before the method": b" GET /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "method in lower case": b"get /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": get(target=b"/bad /x"),
    "junk before the method": b"\x16\x03\x01GET /bad HTTP/1.1\r\n" + HOST + b"\r\n",
}, BAD)  # fmt: skip

VERSIONS = _cases("version", {
    "0.9, simple": b"GET /bad\r\n\r\n",
    "0.9, named": b"GET /bad HTTP/0.9\r\n" + HOST + b"\r\n",
    "2.0": b"GET /bad HTTP/2.0\r\n" + HOST + b"\r\n",
    "2": b"GET /bad HTTP/2\r\n" + HOST + b"\r\n",
    "3.0": b"GET /bad HTTP/3.0\r\n" + HOST + b"\r\n",
    "1.2": b"GET /bad HTTP/1.2\r\n" + HOST + b"\r\n",
    "1.10": b"GET /bad HTTP/1.10\r\n" + HOST + b"\r\n",
    "01.1": b"GET /bad HTTP/01.1\r\n" + HOST + b"\r\n",
    "1": b"GET /bad HTTP/1\r\n" + HOST + b"\r\n",
    "1,1": b"GET /bad HTTP/1,1\r\n" + HOST + b"\r\n",
    "lower case": b"GET /bad http/1.1\r\n" + HOST + b"\r\n",
    "RTSP": b"DESCRIBE /bad RTSP/1.0\r\n" + HOST + b"\r\n",
    "RTSP OPTIONS": b"OPTIONS /bad RTSP/1.0\r\n" + HOST + b"\r\n",
    "RTSP 1.1 OPTIONS": b"OPTIONS /bad RTSP/1.1\r\n" + HOST + b"\r\n",
    "RTSP 1.1 DESCRIBE": b"DESCRIBE /bad RTSP/1.1\r\n" + HOST + b"\r\n",
    "ICE": b"SOURCE /bad ICE/1.0\r\n" + HOST + b"\r\n",
    "ICE 1.1": b"SOURCE /bad ICE/1.1\r\n" + HOST + b"\r\n",
    "ICE GET": b"GET /bad ICE/1.0\r\n" + HOST + b"\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}, {400, 505})  # fmt: skip

HOSTS = _cases("host", {
    "missing": b"GET /bad HTTP/1.1\r\n\r\n",
    "missing on 1.0": b"GET /bad HTTP/1.0\r\n\r\n",
    "two, equal": get(host=HOST + HOST),
    "two, different": get(host=HOST + b"Host: other\r\n"),
    "two, one empty": get(host=HOST + b"Host:\r\n"),
    "empty": get(host=b"Host:\r\n"),
    "only a port": get(host=b"Host: :443\r\n"),
    "two names": get(host=b"Host: localhost, other\r\n"),
    "two words": get(host=b"Host: localhost other\r\n"),
    "userinfo": get(host=b"Host: user@localhost\r\n"),
    "path": get(host=b"Host: localhost/x\r\n"),
    "query": get(host=b"Host: localhost?x\r\n"),
    "fragment": get(host=b"Host: localhost#x\r\n"),
    "backslash": get(host=b"Host: localhost\\x\r\n"),
    "escape": get(host=b"Host: %6cocalhost\r\n"),
    "URL": get(host=b"Host: https://localhost\r\n"),
    "quote": get(host=b'Host: localhost"\r\n'),
    "semicolon": get(host=b"Host: localhost;x\r\n"),
    "high byte": get(host=b"Host: loc\xe4lhost\r\n"),
    "tab inside": get(host=b"Host: local\thost\r\n"),
    "port of letters": get(host=b"Host: localhost:x\r\n"),
    "port too large": get(host=b"Host: localhost:65536\r\n"),
    "port of six digits": get(host=b"Host: localhost:000443\r\n"),
    "port zero": get(host=b"Host: localhost:0\r\n"),
    "negative port": get(host=b"Host: localhost:-1\r\n"),
    "port with plus": get(host=b"Host: localhost:+443\r\n"),
    "two ports": get(host=b"Host: localhost:443:443\r\n"),
    "bracket open": get(host=b"Host: [::1\r\n"),
    "bracket closed": get(host=b"Host: ::1]\r\n"),
    "IPv6 without brackets": get(host=b"Host: ::1\r\n"),
    "junk behind the bracket": get(host=b"Host: [::1]x\r\n"),
    "zone": get(host=b"Host: [fe80::1%eth0]\r\n"),
    "zone with a quote": get(host=b'Host: [fe80::1%";for=1.2.3.4;x="]\r\n'),
    "zone of loopback": get(host=b"Host: [::1%1]\r\n"),
    "no IPv6 in brackets": get(host=b"Host: [localhost]\r\n"),
    "IPv4 in brackets": get(host=b"Host: [127.0.0.1]\r\n"),
    "empty label": get(host=b"Host: local..host\r\n"),
    "dot before": get(host=b"Host: .localhost\r\n"),
    "only a dot": get(host=b"Host: .\r\n"),
    "300 letters": get(host=b"Host: " + b"a" * 300 + b"\r\n"),
    "other name in the target": get(target=b"http://other/bad"),
    "other port in the target": get(target=b"https://localhost:444/bad"),
    "userinfo in the target": get(target=b"https://user@localhost/bad"),
    "no name in the target": get(target=b"https:///bad"),
    "longer name in the target": get(target=b"https://localhost.other/bad"),
    "name hidden behind @": get(target=b"https://localhost@other/bad"),
    "backslash behind the name": get(target=b"https://localhost\\@other/bad"),
    "fragment behind the name": get(target=b"https://localhost#/bad"),
    "ftp": get(target=b"ftp://localhost/bad"),
    "javascript": get(target=b"javascript:bad"),
    "no slash": get(target=b"bad"),
    "authority form": get(target=b"localhost:443"),
    "star": get(target=b"*"),
    "question mark": get(target=b"?bad"),
    "absolute without Host": get(target=b"https://localhost/bad", host=b""),
}, BAD, closes=False)  # fmt: skip

PATHS = _cases("path", {
    name: get(target=target) for name, target in {
        "dot": b"/bad/./x", "dot dot": b"/bad/../x", "dot at the end": b"/bad/.", "dot dot at the end": b"/bad/..",
        "escaped dot dot": b"/bad/%2e%2e/x", "half escaped": b"/bad/.%2E/x", "only dot dot": b"/..",
        "dot dot with a parameter": b"/bad/..;/x", "dot dot before the query": b"/bad/..?x",
        "escaped dots before a parameter": b"/bad/%2e%2e;a=b/x",
        "double slash": b"/bad//x", "double slash first": b"//other/bad", "triple slash": b"/bad///",
        "escaped slash": b"/bad%2fx", "escaped slash, upper case": b"/bad%2Fx", "escaped backslash": b"/bad%5cx",
        "backslash": b"/bad\\x", "NUL": b"/bad%00", "CR LF": b"/bad%0d%0ax", "LF": b"/bad%0A", "tab": b"/bad%09",
        "unit separator": b"/bad%1f", "DEL": b"/bad%7f", "half an escape": b"/bad%2", "no escape": b"/bad%zz",
        "percent at the end": b"/bad%", "fragment": b"/bad#x", "fragment in the query": b"/bad?x#y",
        "absolute with dot dot": b"https://localhost/bad/../x", "absolute with double slash": b"https://localhost//bad",
    }.items()
}, BAD, closes=False)  # fmt: skip

UPGRADES = _cases("upgrade", {
    "h2c": get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
    "TLS": get(b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"),
    "unknown": get(b"Connection: Upgrade\r\nUpgrade: foo\r\n"),
    "websocket and h2c": get(b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
    "two fields": get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
    "POST": post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n"),
    "with content": get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n") + b"hello",
    "with chunks": get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n") + END,
    "on 1.0": b"GET /bad HTTP/1.0\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
    "CONNECT with a path": b"CONNECT /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT with content": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nContent-Length: 5\r\n\r\nhello",
}, {400, 405})  # fmt: skip

METHODS = _cases("method", {
    "TRACE": b"TRACE /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE with Max-Forwards": b"TRACE /bad HTTP/1.1\r\n" + HOST + b"Max-Forwards: 0\r\n\r\n",
}, {400, 405, 501}, closes=False) + _cases("method", {
    "unknown": b"FROB /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "long": b"G" * 300 + b" /bad HTTP/1.1\r\n" + HOST + b"\r\n",
    "empty": b" /bad HTTP/1.1\r\n" + HOST + b"\r\n",
}, {400, 405, 501})  # fmt: skip

EXPECTATIONS = _cases("expect", {
    "unknown": post(b"Expect: 200-ok\r\nContent-Length: 5\r\n"),
    "two in one": post(b"Expect: 100-continue, foo\r\nContent-Length: 5\r\n"),
    "empty": post(b"Expect:\r\nContent-Length: 5\r\n"),
    "parameter": post(b"Expect: 100-continue;x=1\r\nContent-Length: 5\r\n"),
    "two fields, the first unknown": post(b"Expect: foo\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"),
    "on GET": get(b"Expect: foo\r\n"),
}, {417, 400}, closes=False)  # fmt: skip

SIZES = [
    *_cases("size", {"URL": get(target=b"/bad" + b"x" * 16 * 1024)}, {414}),
    *_cases("size", {
        "head": get(b"X: " + b"x" * 32 * 1024 + b"\r\n"),
        "many small fields": get(b"".join(b"X%d: %b\r\n" % (at, b"x" * 400) for at in range(90))),
        "101 fields": get(b"X: y\r\n" * 100),
        "1000 fields": get(b"X: y\r\n" * 1000),
        "name": get(b"x" * 33 * 1024 + b": y\r\n"),
    }, {431}),
    *_cases("size", {
        "content": post(b"Content-Length: 10485761\r\n"),
        "content of 2^63 - 1": post(b"Content-Length: 9223372036854775807\r\n"),
        "content of 2^64 - 1": post(b"Content-Length: 18446744073709551615\r\n"),
    }, {413, 400}),
]  # fmt: skip

EVERYTHING = [
    *LENGTHS, *CODINGS, *CHUNKS, *LINES, *VERSIONS, *HOSTS, *PATHS, *UPGRADES, *METHODS, *EXPECTATIONS, *SIZES,
]  # fmt: skip
