# The case `bots` measures what it says: heads are scored by what is said of them, and a new head is new.
"""bench/bots.py and bench/bots_edge.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import bots, bots_edge
from bench.report import Run
from edgeproxy.certs import CertificatePaths, make_development
from edgeproxy.message import Body, Request


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> CertificatePaths:
    return make_development(tmp_path_factory.mktemp("certs"), ("localhost",))


def sound(run: Run) -> bool:
    return run.value is not None and 0.05 < run.value < 100_000 and not run.flags


@pytest.mark.parametrize("head", bots.HEADS, ids=lambda head: head.name)
def test_who_scores_counts_and_logs_and_the_other_does_not(head: bots.Head, paths: CertificatePaths) -> None:
    plain, case = (bots.Case(head, paths, bots=on) for on in (False, True))
    for each in (plain, case):
        each.known()
        each.new()
        each.new()
    assert plain.settings is None
    assert case.settings is not None
    assert sum(case.settings.stats.scores) == 3
    assert case.settings.stats.failures == 0
    assert all((b'"bot_score":' in line) == each for each, on in ((False, plain), (True, case)) for line in on.gateway.log.lines)  # type: ignore[union-attr]  # there is one
    assert len(case.gateway.log.lines) == 3  # type: ignore[union-attr]  # the same


def test_the_browser_comes_with_its_session_and_the_sdk_is_caught(paths: CertificatePaths) -> None:
    browser, sdk, unnamed = (bots.Case(head, paths, bots=True) for head in bots.HEADS)
    for case in (browser, sdk, unnamed):
        case.known()
    assert browser.plan.scored is not None
    assert browser.plan.scored.marks().keys.session
    assert browser.plan.scored.cookie([]) is None
    assert browser.plan.scored.current().detections == ()
    assert sdk.plan.scored is not None
    assert [each.name for each in sdk.plan.scored.current().detections] == ["declared_library"]
    assert unnamed.plan.scored is not None
    assert not any(each.certain for each in unnamed.plan.scored.current().detections)


def test_a_new_head_has_another_path_and_plan(paths: CertificatePaths) -> None:
    case = bots.Case(bots.HEADS[0], paths, bots=True)
    seen: list[tuple[bytes, object]] = []
    open_exchange = case.gateway.open

    class Gateway(type(case.gateway)):  # type: ignore[misc]  # a class of slots, for this test
        __slots__ = ()

        def open(self, request: Request, plan: object, body: Body, sink: object) -> object:
            seen.append((request.target, plan))
            return open_exchange(request, plan, body, sink)  # type: ignore[arg-type]  # they are what they were

    case.gateway.__class__ = Gateway
    case.known()
    case.new()
    case.new()
    assert len({path for path, _ in seen}) == 3
    assert len({id(plan) for _, plan in seen}) == 3


def test_the_tables_without_edges_have_figures(paths: CertificatePaths) -> None:
    for table, actions in (
        bots.requests(paths, 0.02, new=True), bots.parts(paths, 0.01), bots.connections(paths, 0.01), bots.rows(paths, 0.01),
    ):  # fmt: skip
        for target in table.targets:
            assert target.who in actions or not actions
        for name, action in actions.items():
            run = action()
            assert sound(run), (table.case, name, run)


def test_the_log_says_whether_an_edge_scores(tmp_path: Path) -> None:
    assert not bots_edge.scored(tmp_path)
    (tmp_path / "access.jsonl").write_bytes(b'{"status":200}\n')
    assert not bots_edge.scored(tmp_path)
    (tmp_path / "access.jsonl").write_bytes(b'{"status":200,"bot_score":2}\n')
    assert bots_edge.scored(tmp_path)


def test_every_load_of_the_edges_names_a_program() -> None:
    assert all('wrk.headers["User-Agent"]' in script for script in bots_edge.LOADS.values())
    assert sum("request.path" in script or "function request()" in script for script in bots_edge.LOADS.values()) == 1
