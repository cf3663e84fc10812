from __future__ import annotations

import pytest

from edgeproxy.config.document import MAX_BYTES, MAX_DEPTH, parse
from edgeproxy.config.problems import ConfigError, Problem


def refused(raw: bytes | str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        parse(raw.encode() if isinstance(raw, str) else raw, "edge.yaml")
    (problem,) = caught.value.problems
    return problem


def test_values_and_keys_know_their_place() -> None:
    document = parse(b"a: 1\nlist:\n  - x: [p, q]\n", "edge.yaml")
    assert document.data == {"a": 1, "list": [{"x": ["p", "q"]}]}
    assert document.value_at(("list", 0, "x", 1)) == (3, 12)
    assert document.key_at(("list", 0, "x")) == (3, 5)
    assert document.value_at(("list", 0, "missing", "deeper")) == (3, 5)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_lines_are_counted_as_the_parser_counts_them(line_break: str) -> None:
    document = parse(f"a: 1{line_break}b: 2".encode(), "edge.yaml")
    assert document.key_at(("b",)) == (2, 1)
    assert document.lines == ["a: 1", "b: 2"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("off", "off"),
        ("8:30", "8:30"),
        ("0777", "0777"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1e5", "1e5"),
        ("=", "="),
        ("9" * 30, "9" * 30),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("-7", -7),
        ("1.2", 1.2),
        ('"1.2"', "1.2"),
        ("'true'", "true"),
    ],
)
def test_scalars_follow_the_yaml_1_2_core_schema(written: str, value: object) -> None:
    data = parse(f"key: {written}\n".encode(), "edge.yaml").data
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


@pytest.mark.parametrize("key", ["on", "1", "null", "1.5", "true"])
def test_keys_are_text(key: str) -> None:
    assert parse(f"{key}: x\n".encode(), "edge.yaml").data == {key: "x"}


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n", "edge.yaml").data == {"a": 1}


def test_every_repeated_key_is_named_with_its_first_line() -> None:
    document = parse(b"a: 1\nb: {c: 1, c: 2}\na: 3\n", "edge.yaml")
    assert [(problem.line, problem.column) for problem in document.problems] == [(2, 11), (3, 1)]
    assert document.problems[1].message == "key 'a' is given twice"
    assert document.problems[1].hint == "first on line 1"


@pytest.mark.parametrize(
    ("raw", "message", "place"),
    [
        (b"", "the configuration is empty", (0, 0)),
        (b"# nothing\n---\n", "the configuration is empty", (0, 0)),
        (b"- a\n", "expected a mapping, not a list", (1, 1)),
        (b"\nhello\n", "expected a mapping, not a single value", (2, 1)),
        (b"a: 1\nb: \xe9\n", "not UTF-8: byte 0xe9 at offset 8", (2, 4)),
        ("a: 1".encode("utf-16"), "not UTF-8: the file is UTF-16", (0, 0)),
        (b"a: \x00\n", "the character U+0000 is not allowed", (1, 4)),
        (b"a: 1\n---\nb: 1\n", "not YAML: but found another document", (2, 1)),
        (b"#" * (MAX_BYTES + 1), "larger than 1 MiB", (0, 0)),
        (b'a: "\\UFFFFFFFF"\n', "not YAML: an escape or a number is out of range", (0, 0)),
        (b"%YAML 9" + b"9" * 5000 + b".1\n---\na: 1\n", "not YAML: an escape or a number", (0, 0)),
    ],
)
def test_what_is_no_mapping_is_one_problem(raw: bytes, message: str, place: tuple[int, int]) -> None:
    problem = refused(raw)
    assert problem.message.startswith(message)
    assert (problem.line, problem.column) == place


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("a:\n\tb: 1\n", (2, 1), "spaces, not tabs"),
        ("a: b: c\n", (1, 5), "in quotes"),
        ("a: [1, 2\nb: 3\n", (2, 2), "is missing"),
        ("host: *.example.org\n", (1, 8), "starts with '*' needs quotes"),
        ("host: *\n", (1, 8), "starts with '*' needs quotes"),
        ('a: "x\n', (2, 1), "a closing quote is missing"),
    ],
)
def test_a_syntax_error_has_its_place_and_a_hint(text: str, place: tuple[int, int], hint: str) -> None:
    problem = refused(text)
    assert (problem.line, problem.column) == place
    assert hint in problem.hint


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? "])
def test_depth_is_bounded(opening: str) -> None:
    problem = refused(opening * 200_000)
    assert "nested too deeply" in problem.message
    assert problem.line == 1


def test_the_deepest_that_is_allowed_is_read() -> None:
    # The mapping and the innermost list are a level each.
    nested = MAX_DEPTH - 1
    document = parse(b"a: " + b"[" * nested + b"]" * nested, "edge.yaml")
    assert document.problems == []
    assert "nested too deeply" in refused("a: " + "[" * (nested + 1) + "]" * (nested + 1)).message


def test_the_number_of_values_is_bounded() -> None:
    assert "too many values" in refused("a: [" + "x," * 60_000 + "]").message


def test_aliases_are_followed_within_the_same_bounds() -> None:
    assert parse(b"a: &one [x]\nb: *one\n", "edge.yaml").data == {"a": ["x"], "b": ["x"]}
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    (problem,) = parse(bomb.encode(), "edge.yaml").problems
    assert problem.message == "too many values, once aliases are followed"


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_an_alias_of_itself_ends(text: str) -> None:
    (problem,) = parse(text.encode(), "edge.yaml").problems
    assert problem.message == "nested too deeply, once aliases are followed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x\n", "tag 'tag:yaml.org,2002:python/object:os.system' is not supported"),
        ("a: !!int 3\n", "tag 'tag:yaml.org,2002:int' is not supported"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "merge keys ('<<') are not supported"),
        ("a: {{ template }}\n", "a key must be text"),
        ('a: "x\\ty"\n', "the value contains the control character U+0009"),
        ('"\\ud800": 1\n', "the key contains the control character U+D800"),
    ],
)
def test_what_is_refused_in_a_document(text: str, message: str) -> None:
    document = parse(text.encode(), "edge.yaml")
    assert [problem.message for problem in document.problems] == [message]
