# Words of a command, as a shell would have them; what a shell would compute is refused.
from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.explaining.question import Unclear
from edgeproxy.explaining.shell import MAX_LINE, words


@pytest.mark.parametrize(("line", "found"), [
    ("curl  'a b'\t\"c d\" e\\ f", ["curl", "a b", "c d", "e f"]),
    ("curl 'https://x/?a=1&b=2' \\\n  -H 'X: y' \\\r\n -s", ["curl", "https://x/?a=1&b=2", "-H", "X: y", "-s"]),
    ("a''b \"\" ''", ["ab", "", ""]),
    (r'''"a\"b\\c\d\$e" x''', [r'a"b\c\d$e', "x"]),
    (r"""$'it\'s\n\t\x41é\u00e9\101\q'""", ["it's\n\tAéé" + "A" + r"\q"]),
    ("-d'{\"a\": \"b\"}'", ['-d{"a": "b"}']),
    ("", []),
    ("  ", []),
])  # fmt: skip
def test_words(line: str, found: list[str]) -> None:
    assert words(line) == found


def test_bytes_of_a_quote_stay_bytes() -> None:
    assert words(r"$'\xff\303\251'")[0].encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9"


@pytest.mark.parametrize(("line", "why"), [
    ("curl $URL", "variable"), ('curl "$URL"', "variable"), ("curl `x`", "variable"), ("curl a | jq", "'|'"),
    ("curl a & b", "'&'"),
    ("curl https://x/?a=1&b=2", "'&'"), ("curl a > b", "'>'"), ("curl 'a", "not closed"), ('curl "a', "not closed"),
    ("curl $'a", "not closed"), ("x" * (MAX_LINE + 1), "longer"),
])  # fmt: skip
def test_what_is_refused(line: str, why: str) -> None:
    with pytest.raises(Unclear, match=why.replace("|", r"\|")):
        words(line)


@given(st.text(max_size=40))
def test_anything_is_words_or_refused(line: str) -> None:
    try:
        assert all(isinstance(word, str) for word in words(line))
    except Unclear:
        pass


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=" a'\"\\$`\n#!é&|", max_size=8), min_size=1, max_size=4), st.sampled_from("sda"))
def test_as_bash_has_them(wanted: list[str], how: str) -> None:
    """Words that are quoted in one of three ways come out of bash and of `words` alike."""

    def quoted(word: str) -> str:
        if how == "s":
            return "'" + word.replace("'", "'\\''") + "'"
        if how == "d":
            return '"' + "".join("\\" + char if char in '"\\$`' else char for char in word) + '"'
        return "$'" + word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"

    line = " ".join(map(quoted, wanted))
    told = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert told.decode().split("\0")[:-1] == wanted == words(line)


@pytest.mark.parametrize("line", ["a \ud800", "'\udfff'", r"$'\ud800'", r"$'\udc80'", r"$'\U0000dfff'"])
def test_half_characters_are_refused(line: str) -> None:
    with pytest.raises(Unclear, match="half a character"):
        words(line)


def test_bytes_of_a_terminal_are_none_of_those() -> None:
    assert words("a\udc80\udcff") == ["a\udc80\udcff"]
