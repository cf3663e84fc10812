# No request makes rules slow: whatever a client writes, four times as much takes about four times as long.
"""The whole pipeline over strings that kill engines that backtrack, and every field and function over text made of one thing.

Time is this process's CPU time, the best of several runs, at two sizes. Quadratic work would take sixteen times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from unit.test_rewriting import stand

from edgeproxy.message import Peer, Request
from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.compiler import compile_value
from edgeproxy.rules.facts import Context, Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.model import RuleBook
from edgeproxy.rules.parser import parse_value
from edgeproxy.rules.ruleset import Ruleset, judge

FOUR = 4
MOST = 9.0  # four times as long, and what noise and caches make of it
FLOOR = 0.0004  # seconds: what is below is noise
# Text of which there can be any amount; the end of each makes matches fail at the last moment.
TEXTS = {
    "a": (b"a", b"!"), "blanks": (b" ", b"x"), "separators": (b";", b"x"), "blank separators": (b"; ", b""),
    "commas": (b",", b""), "pairs": (b"a=1&", b""), "ampersands": (b"&", b""), "percent": (b"%25", b""),
    "unicode": (b"%u0041", b""), "pluses": (b"+", b""), "slashes": (b"/", b"!"), "dots": (b".", b"!"),
    "words": (b"ab ", b"!"), "brackets": (b"[", b""), "digits": (b"1", b""), "quotes": (b'"\\', b""), "braces": (b'{"a":', b""),
    "equals": (b"=", b""), "q": (b";q", b"="), "high": (b"\xe9", b""), "tabs": (b"\t", b";"),
}  # fmt: skip


def text(name: str, size: int) -> bytes:
    part, end = TEXTS[name]
    return (part * (size // len(part) + 1))[: size - len(end)] + end


def facts(content: bytes) -> Facts:
    """A request that has this text in all places at once."""
    headers = [(name, content) for name in (
        b"user-agent", b"cookie", b"referer", b"accept-language", b"x-forwarded-for", b"x-a", b"content-type",
    )]  # fmt: skip
    headers.append((b"content-type", b"application/x-www-form-urlencoded"))
    request = Request(b"POST", b"/" + content + b"?" + content, b"localhost", headers, len(content),
                      peer=Peer("192.0.2.1", trusted=False, secure=True), protocol=0)  # fmt: skip
    made = Facts(request, "localhost", "192.0.2.1", b"0" * 16, time.time, Context())
    made.body = HeldBody(content, False)
    made.reply = SimpleNamespace(status=200, headers=headers)  # type: ignore[assignment]
    made.original_reply = made.reply
    return made


def cpu(work: Callable[[], object], times: int = 3) -> float:
    best = 1e9
    for _ in range(times):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best


def slow(work: Callable[[bytes], object], size: int) -> dict[str, str]:
    """The texts for which `work` is worse than linear."""
    found = {}
    for name in TEXTS:
        small, large = text(name, size), text(name, size * FOUR)
        few, many = cpu(lambda small=small: work(small)), cpu(lambda large=large: work(large))
        if many > max(few, FLOOR) * MOST:
            # Once more, in case somebody else's work was measured.
            few, many = cpu(lambda small=small: work(small), 7), cpu(lambda large=large: work(large), 7)
            if many > max(few, FLOOR) * MOST:
                found[name] = f"{few * 1000:.2f} ms, {many * 1000:.2f} ms"
    return found


def test_every_field() -> None:
    wrong = {}
    for name, info in FIELDS.items():
        found = slow(lambda content, slot=info.slot: getattr(facts(content), slot), 4096)  # type: ignore[misc]
        if found:
            wrong[name] = found
    assert wrong == {}


CALLS = (
    'url_decode({}, "ru")', "decode_base64({})", "encode_base64({})", 'join(split({}, ";", 128), ".")', 'remove_bytes({}, "a; ")',
    'remove_query_args({}, "a", "b")', 'regex_replace({}, "(a+)+(;|&)*x", "${{1}}")', "upper({})", "sha256({})", "uuidv4({})",
    'wildcard_replace({}, "*a*a*a*a*a*a*a*a*a*x", "${{1}}")', 'wildcard_replace({}, "*; *; *;*x", "${{1}}", "s")',
    'lookup_json_string({}, "a", 1, "b")', 'to_string(lookup_json_integer({}, 0, 0, 0))', "concat({0}, {0})", "substring({}, -5)",
)  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_every_function(call: str) -> None:
    run = compile_value(parse_value(call.format("http.request.body.raw"), {}), {})
    assert slow(lambda content: run(facts(content)), 32_768) == {}


TESTS = (
    '{} matches "(a+)+$"', '{} matches "(a|aa)+$"', '{} matches "^(.*)*x$"', '{} matches "(?:; )*=$"',
    '{} matches "(?i)(.*a){{12}}y"',
    '{} wildcard "*a*a*a*a*a*a*a*a*a*y"', '{} contains "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaay"',
    '{} contains "; ; ; ; ; ; ; ; ; ; ; ; ;x"',
    '{} matches "select|union|insert|update|sleep|benchmark|xp_cmd|drop|alter|exec|cast|char|declare|waitfor"',
    'lower({}) contains "; ; ; ; ; ; ; ; ; ; ; ;x"', 'len({}) eq 1', '{} in {{"a" "b"}}', 'starts_with({}, "ab ab")',
)  # fmt: skip


def test_every_operator() -> None:
    fields = ("http.request.body.raw", "http.user_agent", "http.request.uri.path")
    wrong = {}
    for test in TESTS:
        rules = [{"id": f"r{n}", "expression": test.format(name), "action": "log"} for n, name in enumerate(fields)]
        if test.startswith("{}"):
            rules.append({"id": "all", "expression": f"any({test.format('http.request.headers.values[*]')})", "action": "log"})
        made = Ruleset(RuleBook.model_validate({"rules": rules}))
        found = slow(lambda content, made=made: judge(made, facts(content), broken), 4096)  # type: ignore[misc]
        if found:
            wrong[test] = found
    assert wrong == {}


def broken(rule: object, error: Exception) -> None:
    raise AssertionError(rule) from error


PIPELINE = """\
- {id: backtrack, expression: 'http.request.body.raw matches "^(([a-z])+.)+[A-Z]([a-z])+$"', action: block}
- {id: stars, expression: 'http.request.body.raw wildcard "*a*a*a*a*a*a*a*a*a*y"', action: block}
- {id: decode, expression: 'url_decode(http.request.body.raw, "ru") contains "<script"', action: block}
- {id: json, expression: 'lookup_json_string(http.request.body.raw, "a", "b") eq "c"', action: block}
- {id: form, expression: 'any(http.request.body.form.values[*] matches "(a|aa)+$")', action: block}
- {id: tongues, expression: 'any(http.request.accepted_languages[*] eq "xx")', action: block}
- {id: cookies, expression: 'any(http.request.cookies["a"][*] contains "aaaaaaaaaaaaaaab")', action: block}
- {id: move, expression: 'http.request.method eq "POST"', action: rewrite,
   headers: {set: {x-a: {expression: 'regex_replace(http.user_agent, "(a+)+(b|c)", "${1}")'}}}}
"""


def test_the_pipeline(tmp_path: Path) -> None:
    """With HTTP/1.1 around it: the body is held, every rule is asked, the request goes on."""
    made = stand(tmp_path, PIPELINE, {"upstream": "main", "preview": "1MiB"})

    def ask(content: bytes) -> None:
        head = content[:3000].replace(b"\t", b" ")
        lines = b"".join(name + b": " + head.strip(b" ") + b"\r\n" for name in (b"User-Agent", b"Cookie", b"Accept-Language"))
        request = (
            b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n%b\r\n%b" % (len(content), lines, content)
        )
        assert b"HTTP/1.1 200 OK" in made.h1().feed(request, step=16_384).link.written

    assert slow(ask, 32_768) == {}
