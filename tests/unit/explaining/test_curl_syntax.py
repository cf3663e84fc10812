# Commands as people copy them, and the request that curl would send.
from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.explaining.curl import AGENT, no_files, read_curl
from edgeproxy.explaining.question import Question, Unclear
from edgeproxy.explaining.shell import words

COPIED = r"""curl 'https://chat.example/v1/chat/completions' \
  -H 'accept: */*' \
  -H 'authorization: Bearer sk-1' \
  -H 'content-type: application/json' \
  -b 'sid=1; theme=dark' \
  -H 'user-agent: Mozilla/5.0 (X11; Linux x86_64)' \
  --data-raw $'{"model":"gpt","messages":[{"role":"user","content":"it\'s\u0021"}]}' \
  --compressed"""


def read(command: str, **files: bytes) -> Question:
    return read_curl(words(command), lambda name: files[name])


def test_as_a_browser_copies_it() -> None:
    question = read(COPIED)
    assert (question.method, question.url) == ("POST", "https://chat.example/v1/chat/completions")
    assert question.body == b'{"model":"gpt","messages":[{"role":"user","content":"it\'s!"}]}'
    assert question.headers == [
        ("accept-encoding", "deflate, gzip, br, zstd"), ("cookie", "sid=1; theme=dark"), ("accept", "*/*"),
        ("authorization", "Bearer sk-1"), ("content-type", "application/json"), ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ]  # fmt: skip


def test_as_the_documentation_of_an_api_has_it() -> None:
    question = read("""curl https://api.example/v1/messages -H "x-api-key: k" --json '{"a":' --json '1}' """)
    assert (question.method, question.body) == ("POST", b'{"a":1}')
    assert dict(question.headers) == {
        "user-agent": AGENT, "accept": "application/json", "content-type": "application/json", "x-api-key": "k",
    }  # fmt: skip


@pytest.mark.parametrize(("command", "method", "url", "body"), [
    ("curl x.example/a", "GET", "http://x.example/a", None),
    ("curl -I https://x/", "HEAD", "https://x/", None),
    ("curl --url https://x/ -X DELETE", "DELETE", "https://x/", None),
    ("curl -XPUT https://x/ -d a -d b=1", "PUT", "https://x/", b"a&b=1"),
    ("curl -G https://x/?q=1 -d a=1 --data-urlencode 'b=ü &'", "GET", "https://x/?q=1&a=1&b=%C3%BC+%26", None),
    ("curl -sSLk https://x/ -o out -w '%{http_code}' -m 5", "GET", "https://x/", None),
    ("curl https://x/a/../b/./c?x=../y", "GET", "https://x/b/c?x=../y", None),
    ("curl https://x/../..", "GET", "https://x/", None),
    ("curl --path-as-is https://x/a/../b", "GET", "https://x/a/../b", None),
    ("curl https://x/ --data-raw @name", "POST", "https://x/", b"@name"),
    ("curl https://x/ -d @name", "POST", "https://x/", b"one two"),
    ("curl https://x/ --data-binary @name", "POST", "https://x/", b"one\r\n two\n"),
    ("curl https://x/ --data-urlencode k@name", "POST", "https://x/", b"k=one%0D%0A+two%0A"),
    ("curl https://x/ -d ''", "POST", "https://x/", b""),
    ("https://x/ -X OPTIONS", "OPTIONS", "https://x/", None),
    ("/usr/bin/curl -- https://x/", "GET", "https://x/", None),
])  # fmt: skip
def test_methods_urls_and_bodies(command: str, method: str, url: str, body: bytes | None) -> None:
    question = read(command, name=b"one\r\n two\n")
    assert (question.method, question.url, question.body) == (method, url, body)


@pytest.mark.parametrize(("options", "headers"), [
    ("-A x -e https://r/ -u a:b", {"user-agent": "x", "accept": "*/*", "referer": "https://r/", "authorization": "Basic YTpi"}),
    ("-H 'Accept:' -H 'X-Empty;' -H 'User-Agent: y'", {"X-Empty": "", "User-Agent": "y"}),
    ("-d a", {"user-agent": AGENT, "accept": "*/*", "content-type": "application/x-www-form-urlencoded"}),
    ("-H @file", {"user-agent": AGENT, "accept": "*/*", "A": "1", "B": "2"}),
    ("--oauth2-bearer t", {"user-agent": AGENT, "accept": "*/*", "authorization": "Bearer t"}),
    ("-b a=1 -b b=2", {"user-agent": AGENT, "accept": "*/*", "cookie": "a=1; b=2"}),
])  # fmt: skip
def test_headers(options: str, headers: dict[str, str]) -> None:
    assert dict(read(f"curl https://x/ {options}", file=b"A: 1\nB: 2\n").headers) == headers


@pytest.mark.parametrize(("option", "http"), [("", ""), ("--http1.1", "1.1"), ("-0", "1.0"), ("--http2", "2"), ("--http3", "3")])
def test_versions(option: str, http: str) -> None:
    assert read(f"curl https://x/ {option}").http == http


@pytest.mark.parametrize(("command", "why"), [
    ("curl", "no URL"), ("curl https://x/ https://y/", "2 URLs"), ("curl https://x/ --nonsense", "'--nonsense'"),
    ("curl https://x/ -sSZ", r"'-Z' of curl is not understood \(in '-sSZ'\)"), ("curl https://x/ -F a=b", "'-F'"),
    ("curl https://x/ -H", "'-H' needs"), ("curl https://x/ -H nocolon", "no ':'"), ("curl https://x/ -b jar.txt", "cookies"),
    ("curl https://x/ --form a=b", "'--form'"),
])  # fmt: skip
def test_what_is_refused(command: str, why: str) -> None:
    with pytest.raises(Unclear, match=why):
        read(command)


def test_others_files_are_not_read() -> None:
    with pytest.raises(Unclear, match="are not read here"):
        read_curl(words("curl https://x/ -d @/etc/hostname"), no_files)


class _Echo(http.server.BaseHTTPRequestHandler):
    """Remembers requests."""

    def handle_one(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self.server.seen.append((self.command, self.path, self.headers.items(), self.rfile.read(length)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_HEAD = handle_one

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("options", [
    "-d a=1 -d b=2", "-G -d a=b --data-urlencode 'x=ü&'", "-I", "--json '{}'", "-b a=1 -A me -e you -u a:b", "-X PUT -d @file",
    "--data-binary @file", "-H 'Accept:' -H 'X-E;' -H 'Host: other.example'", "--compressed", "--data-urlencode 'plain +'",
])  # fmt: skip
def test_as_curl_sends_it(options: str, tmp_path: Path) -> None:
    """The real curl sends the same, but for its version and the encodings it was built with."""
    (tmp_path / "file").write_bytes(b"one\r\n two\n")
    server = http.server.HTTPServer(("127.0.0.1", 0), _Echo)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        command = [*words(f"curl -s {options}"), f"http://127.0.0.1:{server.server_port}/a/../b?q=1"]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=20, stdout=subprocess.DEVNULL)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    method, path, headers, body = server.seen[0]  # type: ignore[attr-defined]
    question = read_curl(command, lambda name: (tmp_path / name).read_bytes())
    found = question.url.partition(str(server.server_port))[2]
    # Older ones write %c3 for %C3.
    assert (question.method, found.lower(), (question.body or b"").lower()) == (method, path.lower(), body.lower())
    own = {"accept-encoding", "user-agent", "host", "content-length"}

    def plain(pairs: Any) -> dict[str, str]:
        return {name.lower(): value for name, value in pairs if name.lower() not in own}

    assert plain(question.headers) == plain(headers)
    assert ("-A" in options) == any(name == "user-agent" and value == "me" for name, value in question.headers)
