# The command: what is printed, and how what is wrong is said.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.edge import certificates
from typer.testing import CliRunner

from edgeproxy import cli

RULES = """\
rules:
  - {id: scanners, expression: 'lower(http.user_agent) contains "sqlmap"', action: block}
  - {id: reply, phase: response, expression: http.response.code ge 500, action: log}
"""


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    paths = certificates()
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump({
        "listen": {"https": "127.0.0.1:8443"}, "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "routes": [{"upstream": "main"}],
        "rules": [str(tmp_path / "rules.yaml")], "shipped": {"baseline": False, "chat": False},
    }))  # fmt: skip
    return tmp_path / "edge.yaml"


def run(edge: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["explain", "-c", str(edge), *arguments])
    return result.exit_code, result.output


def test_flags_and_text(edge: Path) -> None:
    code, text = run(edge, "https://chat.example/v1/x", "-X", "PUT", "-H", "User-Agent: SQLMap/1", "--client", "203.0.113.7",
                     "--http", "3", "-d", "hello")  # fmt: skip
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == "PUT https://chat.example/v1/x"
    assert lines[1] == "  by          HTTP/3 from 203.0.113.7"
    assert "     scanners  acts [block]: holds; answers 403" in lines
    values = '(lower(http.user_agent) = "sqlmap/1", http.user_agent = "SQLMap/1")'
    assert f'         lower(http.user_agent) contains "sqlmap"  → true   {values}' in lines
    assert lines[-1] == "Outcome: the edge answers 403: rule 'scanners' (block)"
    assert "\x1b" not in text


def test_curl_in_one_word_and_in_many(edge: Path) -> None:
    one = run(edge, "curl 'https://chat.example/' -A sqlmap --client-cert x")
    assert one[0] == 1 and "'--client-cert' of curl is not understood" in one[1]
    assert "answers 403" in run(edge, "curl 'https://chat.example/' -A sqlmap")[1]
    assert "answers 403" in run(edge, "--", "curl", "https://chat.example/", "-A", "sqlmap")[1]


def test_json(edge: Path) -> None:
    code, text = run(edge, "https://chat.example/", "--json", "--status", "503", "--response-header", "X-A: 1")
    found = json.loads(text)
    assert code == 0 and found["outcome"]["hits"] == ["reply"]


def test_a_fingerprint(edge: Path) -> None:
    ja4 = "t13d1517h2_8daaf6152771_cb7bf5808d99"
    expression = f'cf.bot_management.ja4 eq "{ja4}"'
    (edge.parent / "rules.yaml").write_text(yaml.safe_dump({"rules": [{"id": "a", "expression": expression, "action": "block"}]}))
    assert expression in run(edge, "https://chat.example/", "--ja4", ja4)[1]
    assert "answers 403" in run(edge, "curl https://chat.example/", "--ja4", ja4)[1]
    code, text = run(edge, "https://chat.example/", "--ja4", "chrome")
    assert code == 1
    assert "is not a JA4" in text


def test_brief_leaves_out_what_did_nothing(edge: Path) -> None:
    assert "→ false" in run(edge, "https://chat.example/")[1]
    brief = run(edge, "https://chat.example/", "--brief", "--status", "500")[1]
    assert "http.user_agent" not in brief and "http.response.code ge 500  → true" in brief and "scanners  no match" in brief


def test_a_body_from_a_file(edge: Path, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"12345")
    assert "5 bytes" in run(edge, "https://chat.example/", "--data", f"@{tmp_path / 'body'}")[1]
    assert "3 bytes" in run(edge, f"curl https://chat.example/ --data-raw abc -H 'X: @{tmp_path}'")[1]
    code, text = run(edge, "https://chat.example/", "--data", f"@{tmp_path / 'none'}")
    assert code == 1 and "cannot be read" in text


def archive(path: Path, *requests: dict[str, Any]) -> str:
    path.write_text(json.dumps({"log": {"entries": [{"request": each} for each in requests]}}))
    return str(path)


def test_har(edge: Path, tmp_path: Path) -> None:
    sqlmap = {"method": "GET", "url": "https://chat.example/b", "headers": [{"name": "User-Agent", "value": "sqlmap"}]}
    plain = {"method": "GET", "url": "https://chat.example/a", "headers": []}
    odd = {"method": "GET", "url": "data:text/plain,x", "headers": []}
    file = archive(tmp_path / "a.har", plain, sqlmap, odd)
    code, text = run(edge, "--har", file)
    assert code == 0
    assert text.splitlines() == [
        "1  GET https://chat.example/a", "   → goes to the upstream main (http://127.0.0.1:9000)", "2  GET https://chat.example/b",
        "   → the edge answers 403: rule 'scanners' (block)", "3  GET data:text/plain,x",
        "   → not a request for the edge: 'data:text/plain,x' is not a URL like https://chat.example/v1/models", "",
        "Details: --entry N",
    ]  # fmt: skip
    assert [row["outcome"] and row["outcome"]["rule"] for row in json.loads(run(edge, "--har", file, "--json")[1])[1:]] == [
        "scanners", None]  # fmt: skip
    assert run(edge, "--har", file, "--entry", "2")[1].startswith("GET https://chat.example/b\n")
    assert run(edge, "--har", archive(tmp_path / "b.har", plain))[1].startswith("GET https://chat.example/a\n")
    code, text = run(edge, "--har", file, "--entry", "4")
    assert code == 1 and "entries 1 to 3" in text


@pytest.mark.parametrize(("arguments", "why"), [
    ([], "give a URL, a curl command or --har"), (["https://x/", "y"], "one URL, not 2 words"), (["x"], "not a URL"),
    (["https://x/", "--entry", "1"], "belongs to --har"), (["curl https://x/", "-X", "POST"], "belong to a URL"),
    (["https://x/", "-H", "nocolon"], "has no ':'"), (["https://x/", "--status", "99"], "99 is not the status"),
    (["curl https://x/?a&b"], "'&' outside of quotes"), (["--har", "none.har"], "none.har cannot be read"),
])  # fmt: skip
def test_what_is_refused(edge: Path, arguments: list[str], why: str) -> None:
    code, text = run(edge, *arguments)
    assert code == 1 and why in text


def test_a_bad_configuration(edge: Path) -> None:
    edge.write_text("listen: {}\n")
    assert run(edge, "https://x/")[0] == 1


def test_help_has_examples(edge: Path) -> None:
    text = run(edge, "--help")[1]
    assert "--har saved.har" in text and "curl" in text


def test_in_colour() -> None:
    from support.explaining import asked, config_with

    from edgeproxy.explaining.text import render

    found = asked(config_with({"id": "a", "expression": "ssl", "action": "block"}))
    assert "\x1b[31;1macts\x1b[0m" in render(found, colour=True)
    import re

    assert re.sub("\x1b\\[[0-9;]*m", "", render(found, colour=True)) == render(found)
