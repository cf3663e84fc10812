# Rule files on disk: everything that is wrong is found at once, in its place; what is right becomes one book.
"""files.py, lists.py, model.py, ruleset.py and golden.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.rules import facts

from edgeproxy.rules.files import Loaded, read_rules
from edgeproxy.rules.golden import case_files, run
from edgeproxy.rules.rule import Rule
from edgeproxy.rules.ruleset import Ruleset, judge


def load(tmp_path: Path, **files: str) -> Loaded:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return read_rules((str(tmp_path / "*.yaml"),))


def rules(tmp_path: Path, text: str) -> Ruleset:
    loaded = load(tmp_path, a=text)
    assert not loaded.problems, loaded.problems
    return Ruleset(loaded.book)


def said(loaded: Loaded) -> list[str]:
    return [f"{Path(each.file).name}:{each.line}:{each.column} {each.message}" for each in loaded.problems]


def test_every_problem_of_every_file(tmp_path: Path) -> None:
    one = """\
lists:
  nets: [10.0.0.1/8]
  odd: {kind: number, file: none.txt}
rules:
  - id: a
    expression: |
      http.host eq "x" and
      ip.scr in $nets
    action: block
  - {id: b, expression: "http.host contains \\"a\\" and len(http.host) gt \\"3\\"", action: log, status: 404}
"""
    two = """\
rules:
  - id: a
    expression: 'http.request.uri.path matches "a{x}"'
    action: rewrite
  - {id: c, expression: ssl, action: block, status: 200}
  - {id: d, expression: ssl, action: redirect}
  - {id: e, expression: ssl, action: skip, skip: [cc]}
"""
    broken = "rules: [{id: a/b, expresion: ssl, action: blok}]\n"
    assert said(load(tmp_path, a=one, b=two, c=broken)) == [
        "c.yaml:1:14 'a/b' is not an id",
        "c.yaml:1:43 'rules[0].action' must be 'block', 'challenge', 'managed_challenge', 'js_challenge', 'skip', 'log', 'allow',"
        " 'redirect', 'rewrite', 'route' or 'set', not the text 'blok'",
        "c.yaml:1:19 unknown key 'expresion'",
        "a.yaml:2:10 bits are set beyond the prefix: '10.0.0.0/8' is the network",
        "a.yaml:3:29 'none.txt' cannot be read: No such file or directory",
        "a.yaml:8:7 unknown field 'ip.scr'",
        "a.yaml:10:74 expected a number",
        "a.yaml:10:94 'status' has no meaning for the action 'log'",
        "b.yaml:2:9 id 'a' is there twice",
        "b.yaml:3:50 a '{' that repeats nothing",
        "b.yaml:2:5 a rewrite needs 'path', 'query' or 'headers'",
        "b.yaml:5:53 a block answers with 400 to 499, not 200",
        "b.yaml:6:5 a redirect needs either 'location' or 'location_expression'",
        "b.yaml:7:50 unknown rule 'cc'",
    ]


def test_lists_of_files_and_inline(tmp_path: Path) -> None:
    (tmp_path / "nets.txt").write_text("# ours\n192.0.2.0/24\n2001:db8::/32  # six\n\n203.0.113.7..203.0.113.9\n")
    ruleset = rules(tmp_path, """\
lists:
  nets: {file: nets.txt}
  words: [example.org, a]
  numbers: [0, 5]
rules:
  - {id: n, expression: "ip.src in $nets", action: log}
  - {id: w, expression: "http.host in $words", action: log}
  - {id: i, expression: "cf.threat_score in $numbers", action: log}
  - {id: off, expression: "ssl", action: block, enabled: false}
""")
    assert [rule.id for rule in judge(ruleset, facts(), unexpected).hits] == ["n", "w", "i"]
    (tmp_path / "nets.txt").write_text("192.0.2.0/24\n192.0.2.1/24\n")
    assert said(read_rules((str(tmp_path / "a.yaml"),))) == [
        "nets.txt:2:1 bits are set beyond the prefix: '192.0.2.0/24' is the network"
    ]


def test_patterns(tmp_path: Path) -> None:
    loaded = read_rules((str(tmp_path / "no*.yaml"), str(tmp_path / "none.yaml")))
    assert [finding.path for finding in loaded.findings] == [("rules", 0)]
    assert said(loaded) == ["none.yaml:0:0 cannot be read: No such file or directory"]
    assert said(load(tmp_path, empty="")) == ["empty.yaml:0:0 the rule file is empty"]


def line(name: str, action: str, expression: str = "ssl", more: str = "") -> str:
    """One rule."""
    return f"- {{id: {name}, expression: '{expression}', action: {action}{more}}}"


def unexpected(rule: Rule, error: Exception) -> None:
    raise AssertionError(rule.id) from error


LATE = "http.request.timestamp.sec gt 0"


@pytest.mark.parametrize(("lines", "hits", "final"), [
    ([line("a", "allow"), line("b", "block")], ["a"], "a"),
    ([line("a", "skip", more=", skip: [b]"), line("b", "block"), line("c", "log")], ["a", "c"], None),
    ([line("a", "skip"), line("b", "block")], ["a"], None),
    ([line("a", "block", more=", mode: log"), line("b", "challenge")], ["a", "b"], "b"),
    ([line("a", "skip", LATE, ", skip: [b]"), line("b", "block"), line("c", "block")], ["a", "c"], "c"),
    ([line("a", "log"), line("b", "log", LATE), line("c", "log")], ["a", "b", "c"], None),
    ([line("a", "block", "not ssl")], [], None),
])  # fmt: skip
def test_decisions(tmp_path: Path, lines: list[str], hits: list[str], final: str | None) -> None:
    ruleset = rules(tmp_path, "\n".join(["rules:", *lines, ""]))
    decision = judge(ruleset, facts(), unexpected)
    assert [rule.id for rule in decision.hits] == hits
    assert (decision.final.id if decision.final else None) == final


def test_samples_and_failures(tmp_path: Path) -> None:
    ruleset = rules(tmp_path, "\n".join(["rules:", line("a", "block", more=", sample: 0.25"), line("b", "log"), ""]))
    drawn = [judge(ruleset, facts(), unexpected, lambda each=draw: each) for draw in (0.1, 0.25)]  # type: ignore[misc]
    assert [[rule.id for rule in each.hits] for each in drawn] == [["a"], ["b"]]
    broken: list[str] = []
    given = facts()
    given.request.peer = None  # type: ignore[assignment]  # so that `ssl` raises
    assert judge(ruleset, given, lambda rule, _error: broken.append(rule.id)).hits == ()
    assert broken == ["a", "b"]


CASES = """\
cases:
  - name: one
    request: {url: "https://example.org/x", headers: {User-Agent: [sqlmap]}}
    expect: {action: block, rule: a, status: 451}
  - {request: {url: "https://example.org/?q=1"}, expect: {action: redirect, location: "/new", hits: [b]}}
  - {request: {url: "https://example.org/a/../x"}, expect: {action: pass}}
"""


def test_golden_cases(tmp_path: Path) -> None:
    one = line("a", "block", 'http.user_agent eq "sqlmap"', ", status: 451")
    two = line("b", "redirect", 'http.request.uri.query ne ""', ", location: /new")
    (tmp_path / "r.yaml").write_text(f"rules:\n{one}\n{two}\n")
    (tmp_path / "r.cases.yaml").write_text(CASES)
    assert case_files([tmp_path]) == case_files([tmp_path / "r.yaml"]) == case_files([tmp_path / "r.cases.yaml"])
    outcome = run(tmp_path / "r.cases.yaml")
    assert outcome.cases == 3
    assert [problem.message for problem in outcome.problems] == [
        "case 3: the edge refuses this request before any rule: the path has a dot segment ('/./' or '/../')"
    ]
    (tmp_path / "r.cases.yaml").write_text(CASES.replace("451", "403").replace("/new", "/other"))
    assert [problem.message for problem in run(tmp_path / "r.cases.yaml").problems][:2] == [
        "case 'one': expected status 403, not 451", "case 2: expected location /other, not /new",
    ]  # fmt: skip
