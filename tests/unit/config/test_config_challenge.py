"""The section `challenge`: its bounds, and the file of its secrets, which no problem shows."""

from __future__ import annotations

import json

import pytest

from edgeproxy.config.load import load
from edgeproxy.config.model import Config
from edgeproxy.config.secret import TO_WORKERS

from .samples import NOW, Writer

LONG = "0123456789abcdef" * 4


def with_section(files: Writer, section: str) -> str:
    return f"{files.text()}\nchallenge: {section}\n"


def test_secrets_are_read_and_travel_to_workers_alone(files: Writer) -> None:
    file = files.cert.parent / "challenge.secret"
    file.write_text(f"{LONG}\n\n  {LONG[::-1]}  \n")
    config = load(files.write(with_section(files, f"{{secret_file: {file}}}")), now=NOW)
    assert [each.reveal() for each in config.challenge.secrets] == [LONG.encode(), LONG[::-1].encode()]
    assert LONG not in repr(config) and LONG not in config.model_dump_json()
    there = Config.model_validate_json(config.model_dump_json(context=TO_WORKERS))
    assert there.challenge == config.challenge


@pytest.mark.parametrize("content", ["", "short", f"{LONG}\nshort", f"{LONG}\n" * 5, "x" * 9000])
def test_a_file_that_holds_no_secret(files: Writer, content: str) -> None:
    file = files.cert.parent / "challenge.secret"
    file.write_text(content)
    (problem,) = files.problems(with_section(files, f"{{secret_file: {file}}}"))
    assert "holds no secret" in problem.message and "short" not in str(problem)


def test_a_file_that_is_not_there(files: Writer) -> None:
    (problem,) = files.problems(with_section(files, "{secret_file: /nowhere/x}"))
    assert "cannot be read: No such file" in problem.message


@pytest.mark.parametrize(("section", "said"), [
    ({"clearance": "1s"}, "10s to 1d"), ({"clearance": "2d"}, "10s to 1d"), ({"no_script": {"wait": "10m"}}, "1s to 2m"),
    ({"difficulties": [{"up_to": 9, "bits": 20}]}, "the last is 99"), ({"difficulties": []}, "challenge.difficulties"),
    ({"difficulties": [{"up_to": 99, "bits": 20}, {"up_to": 9, "bits": 20}]}, "rises"), ({"unscored_bits": 30}, "26"),
    ({"path": "check"}, "no path"), ({"path": "/a/../b"}, "no path"), ({"path": "/a b"}, "no path"), ({"path": "/a/"}, "no path"),
    ({"path": "//a"}, "no path"), ({"secrets": [1]}, "no place in the configuration"), ({"secret_file": 5}, "path of a file"),
])  # fmt: skip
def test_bounds(files: Writer, section: dict[str, object], said: str) -> None:
    problems = files.problems(with_section(files, json.dumps(section)))
    assert any(said in str(problem) for problem in problems), problems


def test_a_secret_that_was_written_where_its_file_belongs(files: Writer) -> None:
    (problem,) = files.problems(with_section(files, f"{{secret_file: {LONG}}}"))
    assert LONG not in str(problem) and problem.source == ""
