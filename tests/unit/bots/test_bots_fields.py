# Structured fields: what RFC 9651 allows and forbids, and that no bytes raise.
"""bots/fields.py."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.bots.fields import MAX_FIELD, MAX_MEMBERS, MAX_PARTS, Inner, Item, Token, dictionary, item


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1", 1), (b"-42", -42), (b"999999999999999", 999999999999999), (b"1.5", 1.5), (b"-0.125", -0.125), (b'"a b"', "a b"),
        (rb'"a\"b\\c"', 'a"b\\c'), (b'""', ""), (b"tok/en:1*", Token("tok/en:1*")), (b"*a", Token("*a")), (b":AQI=:", b"\1\2"),
        (b":AQI:", b"\1\2"), (b"::", b""), (b"?1", True), (b"?0", False), (b"@1659578233", 1659578233), (b"  1  ", 1),
    ],
)  # fmt: skip
def test_items(text: bytes, value: object) -> None:
    found = item(text)
    assert found is not None and found.value == value and type(found.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"1 2", b"1,2", b"1.", b".5", b"1.2345", b"1234567890123.1", b"1000000000000000",
        b"--1", b"-", b'"a', b'"\\x"', b'"\xe9"',
        b'"a\tb"', b":A:", b":A", b":AQI!:", b"?2", b"?", b"@", b"@1.5", b"(1)", b"1;", b"1;A=2", b"1;a=",
        b"=1", b"\xff", b"1\t", b"a b",
        b"1" + b";a" * 9000, b"x" * (MAX_FIELD + 1), b"1;" + b";".join(b"a%d" % n for n in range(MAX_MEMBERS + 1)),
    ],
)  # fmt: skip
def test_what_is_no_item(text: bytes) -> None:
    assert item(text) is None


def test_dictionaries() -> None:
    found = dictionary(b'a=1;x;y="z", b=("p" "q";k=v  1);t=2,c;q=1,\td=?0, a=:AA==:')
    assert found is not None
    assert list(found) == ["b", "c", "d", "a"], "the last of a key counts, where it stands"
    inner = found["b"]
    assert isinstance(inner, Inner)
    assert [each.value for each in inner.items] == ["p", "q", 1] and inner.items[1].parameters == {"k": "v"}
    assert inner.parameters == {"t": 2} and inner.text == '("p" "q";k=v  1);t=2' and inner.items[1].text == '"q";k=v'
    assert found["c"] == Item(True, {"q": 1}, "?1;q=1") and found["a"].parameters == {}
    assert dictionary(b"") == {} and dictionary(b"  ") == {}
    empty = dictionary(b"a=(), b=( )")
    assert empty is not None and all(isinstance(each, Inner) and not each.items for each in empty.values())


@pytest.mark.parametrize(
    "text",
    [
        b"a=1,", b"a=1 b=2", b",a=1", b"A=1", b"1=1", b"a=", b"a=(", b"a=(1", b"a=(1,2)", b'a=(1"x")',
        b"a=((1))", b"a=1,,b=2", b"a = 1",
        b"\xe9=1", b"a=(" + b"1 " * (MAX_MEMBERS + 1) + b")", b",".join(b"a%d" % n for n in range(MAX_MEMBERS + 1)), b"a" * 200,
    ],
)  # fmt: skip
def test_what_is_no_dictionary(text: bytes) -> None:
    assert dictionary(text) is None


def test_parts_are_bounded() -> None:
    """So that no field takes longer than a fifth of a millisecond or so."""
    lists = MAX_PARTS // 25
    most = b", ".join(b"k%d=(%b)" % (number, b" ".join([b"1;a;b;c"] * 6)) for number in range(lists))
    assert dictionary(most) is not None
    assert dictionary(most + b", more=(%b)" % b" ".join([b"1;a;b;c"] * 6)) is None
    assert dictionary(b", ".join(b"k%d=(%b)" % (number, b"1 " * 31) for number in range(31))) is None


_KEYS = st.text(string.ascii_lowercase + "*", min_size=1, max_size=8)
_STRINGS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.dictionaries(_KEYS, _STRINGS | st.integers(-(10**15) + 1, 10**15 - 1) | st.booleans(), max_size=8))
def test_what_is_written_is_read(values: dict[str, str | int | bool]) -> None:
    def written(value: str | int | bool) -> str:
        if isinstance(value, bool):
            return f"?{int(value)}"
        return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(f"{key}={written(value)};p={written(value)}" for key, value in values.items())
    found = dictionary(text.encode())
    assert found is not None
    assert {key: each.value for key, each in found.items() if isinstance(each, Item)} == values
    assert all(each.parameters["p"] == values[key] for key, each in found.items())
    assert [each.text for each in found.values()] == [f"{written(value)};p={written(value)}" for value in values.values()]


@given(st.binary(max_size=300) | st.text(string.printable, max_size=300).map(str.encode))
def test_garbage_is_never_more_than_none(data: bytes) -> None:
    dictionary(data)
    item(data)
