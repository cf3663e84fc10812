# Explanations as JSON, for the admin address.
from __future__ import annotations

import json
from typing import Any

import pytest
from support.explaining import config_with

from edgeproxy.explaining.desk import Desk
from edgeproxy.explaining.question import Unclear


def ask(desk: Desk, **about: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk.answer(json.dumps(about).encode()))
    return found


def blocking(agent: str) -> Any:
    return config_with({"id": f"no-{agent}", "expression": f'http.user_agent contains "{agent}"', "action": "block"})


def test_urls_and_commands() -> None:
    desk = Desk(blocking("sqlmap"))
    found = ask(desk, url="https://x/", headers={"User-Agent": "sqlmap", "X": ["1", "2"]}, client="203.0.113.7", http=3)
    assert found["outcome"] == {
        "says": "the edge answers 403: rule 'no-sqlmap' (block)", "stage": "rules", "status": 403, "rule": "no-sqlmap",
        "hits": ["no-sqlmap"],
    }  # fmt: skip
    assert found["request"][1]["value"] == "HTTP/3 from 203.0.113.7"
    (rule,) = next(stage for stage in found["stages"] if stage["name"] == "rules")["rules"]
    assert rule["state"] == "acts" and rule["expression"]["answer"] is True
    assert ask(desk, url="https://x/", headers=[["User-Agent", "sqlmap"]])["outcome"]["status"] == 403
    assert ask(desk, url="https://x/", method="POST", body="a", http="1.1")["outcome"]["upstream"] == "main"
    assert ask(desk, curl="curl https://x/ -A sqlmap", client="203.0.113.7")["outcome"]["status"] == 403
    assert ask(desk, url="https://x/", response_headers={"a": "b"})["stages"][-1]["says"].startswith("200")


def test_a_fingerprint() -> None:
    ja4 = "t13d1517h2_8daaf6152771_cb7bf5808d99"
    desk = Desk(config_with({"id": "a", "expression": f'cf.bot_management.ja4 eq "{ja4}"', "action": "block"}))
    assert ask(desk, url="https://x/", ja4=ja4)["outcome"]["status"] == 403
    assert ask(desk, curl="curl https://x/", ja4=ja4)["outcome"]["status"] == 403
    assert ask(desk, url="https://x/")["outcome"]["upstream"] == "main"


def test_another_configuration_is_compiled_when_somebody_asks() -> None:
    desk = Desk(blocking("a"))
    assert desk._paper is None
    ask(desk, url="https://x/")
    first = desk._paper
    ask(desk, url="https://x/")
    assert desk._paper is first, "once for a generation"
    desk.use(blocking("b").model_dump_json().encode())
    assert desk._paper is None
    assert ask(desk, curl="curl https://x/ -A b")["outcome"]["rule"] == "no-b"


@pytest.mark.parametrize(("content", "why"), [
    (b"", "not understood"), (b"[]", "not understood"), (b"{}", "give 'url' or 'curl'"),
    (b'{"url": "https://x/", "curl": "curl x"}', "only one"), (b'{"url": 5}', r"\$.url"), (b'{"uri": "x"}', "uri"),
    (b'{"url": "x"}', "not a URL"), (b'{"curl": "curl -d @/etc/hostname https://x/"}', "not read here"),
    (b'{"curl": "curl x", "method": "POST"}', "belong to 'url'"), (b'{"url": "https://x/", "status": 99}', "99"),
    (b'{"url": "https://x/", "http": 7}', "version"), (b"\xff", "not understood"),
])  # fmt: skip
def test_what_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(Unclear, match=why):
        Desk(config_with()).answer(content)


def test_secrets_stay_hidden() -> None:
    found = ask(Desk(config_with()), url="https://x/", headers={"Authorization": "Bearer hush"})
    assert "hush" not in json.dumps(found)


def test_secrets_of_the_configuration_stay_hidden() -> None:
    headers = {"set": {"x-origin-verify": "HUSH3", "authorization": "Bearer HUSH4"}}
    config = config_with(
        {"id": "k", "expression": 'any(http.request.headers["x-api-key"][*] eq "HUSH2")', "action": "allow", "mode": "log"},
        {"id": "h", "expression": "ssl", "action": "rewrite", "headers": headers},
        {"id": "r", "phase": "response", "expression": "ssl", "action": "rewrite", "headers": headers},
    )  # fmt: skip
    for about in ({}, {"status": 200}):
        assert "HUSH" not in json.dumps(ask(Desk(config), url="https://x/", **about))


@pytest.mark.parametrize("about", [
    {"curl": "curl 'http://['"}, {"curl": "curl 'http://[::1'"}, {"curl": "curl 'http://a\u2100b/'"},
    {"curl": r"curl http://a/ -d $'\ud800'"}, {"curl": "curl http://a/ --data-urlencode '\ud800'"}, {"url": "http://a/\ud800"},
    {"url": "http://a/", "headers": {"x": "\ud800"}}, {"url": "http://a/", "response_headers": {"x": "\ud800"}},
    {"url": "http://a/", "response_headers": {"\ud800": "x"}}, {"url": "http://a/", "client": "\ud800"},
])  # fmt: skip
def test_what_is_no_text_and_no_url_is_refused(about: dict[str, Any]) -> None:
    with pytest.raises(Unclear):
        ask(Desk(config_with()), **about)


def test_a_user_of_bytes() -> None:
    assert ask(Desk(config_with()), curl=r"curl -u $'\xff' http://a/")["request"][2]["name"] == "user-agent"


def test_what_plain_urls_speak() -> None:
    desk = Desk(config_with())
    for url, options, version in [
        ("http://a/", "", "HTTP/1.1"), ("https://a/", "", "HTTP/2"), ("http://a/", "--http2", "HTTP/1.1"),
        ("http://a/", "--http2-prior-knowledge", "HTTP/2"), ("a", "", "HTTP/1.1"), ("https://a/", "--http1.1", "HTTP/1.1"),
    ]:
        assert ask(desk, curl=f"curl {url} {options}")["request"][1]["value"].startswith(f"{version} from"), (url, options)
    assert ask(desk, url="http://a/")["request"][1]["value"].startswith("HTTP/1.1 from")
    assert ask(desk, url="http://a/", http=2)["request"][1]["value"].startswith("HTTP/2 from")
