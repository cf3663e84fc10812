from __future__ import annotations

from edgeproxy.config.problems import MAX_SHOWN, ConfigError, Problem, nearest, one_of, quote, suggest


def test_a_problem_shows_its_line_and_a_caret() -> None:
    problem = Problem("edge.yaml", 3, 9, "unknown key 'timeout'", "did you mean 'timeouts'?", "        timeout: 3s")
    assert problem.render() == (
        "edge.yaml:3:9 unknown key 'timeout' (did you mean 'timeouts'?)\n            timeout: 3s\n            ^"
    )


def test_a_problem_of_the_whole_file_has_no_line() -> None:
    assert Problem("edge.yaml", 0, 0, "file not found").render() == "edge.yaml: file not found"


def test_the_caret_stands_below_its_character_after_tabs_wide_and_combining_ones() -> None:
    _, text, caret = Problem("f", 1, 4, "m", source="\t世e\u0301x").render().splitlines()
    assert text == "    \t世e\u0301x"
    assert caret == "    \t   ^"  # the caret is below the combining character, which takes no column of its own


def test_a_long_line_is_cut_around_the_column() -> None:
    _, text, caret = Problem("f", 1, 5001, "m", source="a" * 5000 + "X" + "b" * 5000).render().splitlines()
    assert text[caret.index("^")] == "X"
    assert len(text) < 140
    assert text.strip().startswith("… a")
    assert text.endswith("b …")


def test_a_column_beyond_the_line_is_its_end() -> None:
    assert Problem("f", 1, 99, "m", source="ab").render().splitlines()[2] == "      ^"


def test_nothing_from_the_file_reaches_the_terminal_unprintable() -> None:
    shown = Problem("f\x1b", 1, 1, "key \x1b[31m\nred", "\ud800", "\x1b]0;title\x07: 1").render()
    headline, source, _ = shown.split("\n")
    assert headline.isprintable()
    assert source.isprintable()
    shown.encode()


def test_a_password_in_a_url_is_not_shown() -> None:
    line = '  - {url: "https://user:secret@host"}'
    assert "secret" not in Problem("f", 1, 11, "m", source=line).render()
    assert "secret" not in quote("https://user:secret@host")


def test_the_error_lists_problems_in_file_order_and_counts_what_it_hides() -> None:
    error = ConfigError([Problem("f", line, 1, f"at {line}") for line in range(MAX_SHOWN + 5, 0, -1)])
    assert [problem.line for problem in error.problems] == list(range(1, MAX_SHOWN + 6))
    assert str(error).startswith("f:1:1 at 1\nf:2:1 at 2\n")
    assert str(error).endswith("… and 5 more")


def test_suggestions() -> None:
    assert suggest("timeout", ["timeouts", "targets"]) == "did you mean 'timeouts'?"
    assert suggest("Max-Body", ["max_body"]) == "did you mean 'max_body'?"
    assert suggest("zzz", ["timeouts"]) == ""
    assert suggest("x", []) == ""
    assert nearest("a" * 10_000, ["timeouts"]) == ""


def test_words_are_listed() -> None:
    assert one_of(["a"]) == "'a'"
    assert one_of(["a", "b", "c"]) == "'a', 'b' or 'c'"


def test_quotes_are_bounded_and_printable() -> None:
    assert quote("a\nb") == "'a\\x0ab'"
    assert len(quote("x" * 1000)) == 62
