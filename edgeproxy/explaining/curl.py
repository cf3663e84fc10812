# A curl command as a question: which of its options say something about the request, and which do not matter here.
"""`read_curl` takes the words of a command. Options it does not know are errors that name them: a guess would explain a
request that nobody sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus

from edgeproxy.explaining.question import Question, Unclear, basic, encoded, user_of

AGENT: Final = "curl/8.5.0"  # what a command without -A says, in some version
_ENCODINGS: Final = "deflate, gzip, br, zstd"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_WORDS: Final = 10_000

# Options by their long names. What takes a word, and what that word is for.
_LONG: Final = {
    "X": "request", "H": "header", "d": "data", "A": "user-agent", "e": "referer", "b": "cookie", "u": "user", "G": "get",
    "I": "head", "k": "insecure", "s": "silent", "S": "show-error", "L": "location", "N": "no-buffer", "v": "verbose",
    "i": "include", "f": "fail", "o": "output", "O": "remote-name", "w": "write-out", "m": "max-time", "g": "globoff",
    "0": "http1.0", "4": "ipv4", "6": "ipv6", "#": "progress-bar", "J": "remote-header-name", "c": "cookie-jar",
    "x": "proxy", "D": "dump-header", "q": "disable", "E": "cert", "a": "append", "n": "netrc",
}  # fmt: skip
_WITH_WORD: Final = frozenset({
    "request", "header", "data", "data-ascii", "data-raw", "data-binary", "data-urlencode", "json", "user-agent", "referer",
    "cookie", "user", "url", "oauth2-bearer",
})  # fmt: skip
_SWITCHES: Final = frozenset({
    "get", "head", "compressed", "path-as-is", "http1.0", "http1.1", "http2", "http2-prior-knowledge", "http3", "http3-only",
})  # fmt: skip
# They change how curl behaves, not what it asks first. (-L: what follows a redirect is another request.)
_NO_MATTER: Final = frozenset({
    "insecure", "silent", "show-error", "location", "no-buffer", "verbose", "include", "fail", "fail-with-body", "remote-name",
    "globoff", "ipv4", "ipv6", "progress-bar", "remote-header-name", "disable", "no-progress-meter", "tlsv1", "tlsv1.0",
    "tlsv1.1", "tlsv1.2", "tlsv1.3", "no-keepalive", "tcp-nodelay", "location-trusted", "post301", "post302", "post303",
    "no-alpn", "ssl-reqd", "styled-output", "no-styled-output", "create-dirs", "retry-connrefused", "retry-all-errors",
})  # fmt: skip
_NO_MATTER_WORD: Final = frozenset({
    "output", "write-out", "max-time", "cookie-jar", "dump-header", "cert", "connect-timeout", "retry", "retry-delay",
    "retry-max-time", "resolve", "connect-to", "cacert", "capath", "key", "cert-type", "key-type", "pass", "ciphers",
    "tls13-ciphers", "curves", "limit-rate", "max-redirs", "interface", "keepalive-time", "speed-limit", "speed-time",
    "output-dir", "stderr", "trace", "trace-ascii", "proxy", "noproxy", "proxy-user", "dns-servers", "tls-max", "max-filesize",
})  # fmt: skip
_VERSIONS: Final = {
    "http1.0": "1.0", "http1.1": "1.1", "http2": "2", "http2-prior-knowledge": "2", "http3": "3", "http3-only": "3",
}  # fmt: skip
_DATA: Final = frozenset({"data", "data-ascii", "data-raw", "data-binary", "data-urlencode", "json"})
_ENCODED: Final = re.compile(r"([A-Za-z0-9_.~\[\]%+-]*)([=@])(.*)", re.DOTALL)

ReadFile = Callable[[str], bytes]


def no_files(name: str) -> bytes:
    """For who must not read files on behalf of others."""
    raise Unclear(f"files ('@{name}') are not read here: give what is in it")


def read_curl(words: list[str], read: ReadFile, client: str | None = None) -> Question:
    """The question of a curl command.

    Args:
        words: of the command, with or without `curl` in front.
        read: gives what is in a file that `@name` names.
        client: address that it is sent from; None: the question's default.

    Raises: Unclear.
    """
    if len(words) > _MAX_WORDS:
        raise Unclear(f"the command has more than {_MAX_WORDS} words")
    command = _Command(read)
    command.take(words[1:] if words and words[0].rpartition("/")[2] == "curl" else words)
    question = command.question()
    if client is not None:
        question.client = client
    return question


class _Command:
    def __init__(self, read: ReadFile) -> None:
        self.read = read
        self.urls: list[str] = []
        self.method: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.removed: set[str] = set()
        self.cookies: list[str] = []
        self.data: list[bytes] = []
        self.has_data = False
        self.said: dict[str, str] = {}  # what other options say of headers, by lower-case name
        self.switches: set[str] = set()
        self.http = ""

    def take(self, words: list[str]) -> None:
        """All words behind `curl`."""
        queue = list(reversed(words))
        plain = False
        while queue:
            word = queue.pop()
            if plain or not word.startswith("-") or word == "-":
                self.urls.append(word)
            elif word == "--":
                plain = True
            elif word.startswith("--"):
                self._option(word[2:], word, queue)
            else:
                self._short(word, queue)

    def _short(self, word: str, queue: list[str]) -> None:
        """`-sSXPOST`: switches, and at last one that takes the rest as its word."""
        for at, letter in enumerate(word[1:], 1):
            name = _LONG.get(letter)
            if name is None:
                raise Unclear(f"the option '-{letter}' of curl is not understood" + _among(word))
            rest = word[at + 1 :]
            takes = name in _WITH_WORD or name in _NO_MATTER_WORD
            if takes and rest:
                queue.append(rest)
            self._option(name, f"-{letter}", queue)
            if takes:
                return

    def _option(self, name: str, word: str, queue: list[str]) -> None:
        if name in _NO_MATTER:
            return
        if name in _SWITCHES:
            self.switches.add(name)
            self.http = _VERSIONS.get(name, self.http)
            return
        if name not in _WITH_WORD and name not in _NO_MATTER_WORD:
            raise Unclear(f"the option '{word}' of curl is not understood")
        if not queue:
            raise Unclear(f"the option '{word}' needs something behind it")
        value = queue.pop()
        if name in _WITH_WORD:
            self._said(name, value)

    def _said(self, name: str, value: str) -> None:
        if name in _DATA:
            self._body(name, value)
        elif name == "header":
            self._header(value)
        elif name == "request":
            self.method = value
        elif name == "url":
            self.urls.append(value)
        elif name == "cookie":
            if "=" not in value:
                raise Unclear(f"'-b {value}' names a file of cookies: give them as 'name=value'")
            self.cookies.append(value)
        elif name == "user":
            self.said["authorization"] = basic(value)[1]
        elif name == "oauth2-bearer":
            self.said["authorization"] = f"Bearer {value}"
        else:
            self.said[name] = value  # user-agent, referer

    def _header(self, line: str) -> None:
        if line.startswith("@"):
            for each in self.read(line[1:]).decode("utf-8", "surrogateescape").splitlines():
                if each:
                    self._header(each)
            return
        name, colon, value = line.partition(":")
        if not colon and line.endswith(";"):
            self.headers.append((line[:-1], ""))  # `-H 'X-A;'` sends it without a value
        elif not colon:
            raise Unclear(f"'-H {line}' has no ':'")
        elif value.strip():
            self.headers.append((name.strip(), value.strip()))
        else:
            self.removed.add(name.strip().lower())  # `-H 'Accept:'` takes away curl's own

    def _body(self, name: str, value: str) -> None:
        self.has_data = True
        if name == "data-urlencode":
            self.data.append(self._urlencoded(value))
            return
        if value.startswith("@") and name != "data-raw":
            content = self.read(value[1:])
            data = content if name in ("data-binary", "json") else content.translate(None, b"\r\n\0")
        else:
            data = encoded(value)
        if name == "json":
            self.said["content-type"] = self.said["accept"] = "application/json"
            # --json pieces follow each other as they are (curl's manual).
            if self.data:
                self.data[-1] += data
                return
        self.data.append(data)

    def _urlencoded(self, value: str) -> bytes:
        found = _ENCODED.fullmatch(value)
        if found is None:
            return quote_plus(encoded(value)).encode("ascii")
        name, sign, rest = found.groups()
        content = encoded(rest) if sign == "=" else self.read(rest)
        quoted = quote_plus(content)
        return encoded(f"{name}={quoted}" if name else quoted)

    # -- all of it together ------------------------------------------------------------------------------------------

    def question(self) -> Question:
        """What was said."""
        if len(self.urls) != 1:
            raise Unclear("the command has no URL" if not self.urls else f"the command has {len(self.urls)} URLs: ask for one")
        url = self.urls[0] if "://" in self.urls[0] else f"http://{self.urls[0]}"  # as curl does
        body = b"&".join(self.data) if self.has_data else None
        if "get" in self.switches and body is not None:
            front, hash_, fragment = url.partition("#")
            url = front + ("&" if "?" in front else "?") + body.decode("utf-8", "surrogateescape") + hash_ + fragment
            body = None
        if "path-as-is" not in self.switches:
            url = _without_dots(url)
        user = user_of(url)
        if user is not None:
            self.said.setdefault("authorization", basic(user)[1])
        method = self.method or ("HEAD" if "head" in self.switches else None)
        http = self.http
        if url[:7].lower() == "http://" and http == "2" and "http2-prior-knowledge" not in self.switches:
            http = "1.1"  # it asks so to upgrade
        return Question(url, method or ("GET" if body is None else "POST"), self._all_headers(body), body, http=http)

    def _all_headers(self, body: bytes | None) -> list[tuple[str, str]]:
        """What curl adds, unless a -H says otherwise, and then the -H."""
        own = {"user-agent": AGENT, "accept": "*/*"}
        if "compressed" in self.switches:
            own["accept-encoding"] = _ENCODINGS
        if body is not None:
            own["content-type"] = _FORM
        own |= self.said
        if self.cookies:
            own["cookie"] = "; ".join(self.cookies)
        given = {name.lower() for name, _ in self.headers} | self.removed
        return [*((name, value) for name, value in own.items() if name not in given), *self.headers]


def _among(word: str) -> str:
    return f" (in '{word}')" if len(word) > 2 else ""


def _without_dots(url: str) -> str:
    """curl resolves `/./` and `/../` before it asks (RFC 3986 §5.2.4), unless it is told not to."""
    scheme, separator, rest = url.partition("://")
    end = min((at for at in (rest.find(char) for char in "?#") if at >= 0), default=len(rest))
    authority, slash, path = rest[:end].partition("/")
    if not slash or not re.search(r"(?:^|/)\.\.?(?:/|$)", path):
        return url
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return f"{scheme}{separator}{authority}/{'/'.join(kept)}{rest[end:]}"
