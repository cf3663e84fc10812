# Files of keys are changed as text: what is not meant stays to the letter, and what cannot be done is not done.
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import keys_edit
from edgeproxy.config.document import parse
from edgeproxy.config.keys_edit import HEADER, NotEditable, appended, changed, written

ENTRY: dict[str, Any] = {"id": "Zz345678", "name": "new", "hash": "blake2b:00", "models": ["gpt-*", "small"]}
HAND_MADE = """\
# Keys of the team (für alle, 全員). Ask before you change one.
pepper_id: 0123456789abcdef

keys:
    # the first one
    - id: Ab3dEf9h   # do not revoke
      hash: 'blake2b:11'  # made by hand

      name: "first"
      previous:
        hash: blake2b:22
        until: 2026-01-01   # long ago
      # nothing below
    - {id: "00000000", hash: blake2b:33, name: second}  # in braces
    - name: third
      tags:
      - a
      - b   # the second tag
      hash: blake2b:44
      id: Cb3dEf9h
# the end
"""


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True, scope="module")
def _loader(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both of PyYAML's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_edit, "_LOADER", getattr(yaml, request.param))
        yield


def data(text: str) -> Any:
    document = parse(text.encode(), "x", starts="keys")
    assert not document.problems
    return document.data


def lines_added(before: str, after: str) -> list[str]:
    """What is new, if all lines that were there are still there, in their order."""
    rest = iter(after.splitlines())
    new: list[str] = []
    for line in before.splitlines():
        for found in rest:
            if found == line:
                break
            new.append(found)
        else:
            raise AssertionError(f"line {line!r} is gone")
    return new + list(rest)


@pytest.mark.parametrize("text", ["", "\n", "keys: []\n", "keys:\n", "keys: # none yet\n", "# a\nkeys: ~\n# b\n", "keys: []"])
def test_the_first_key(text: str) -> None:
    after = appended(text, ENTRY, "0123456789abcdef")
    assert data(after) == {"pepper_id": "0123456789abcdef", "keys": [ENTRY]}
    assert after.endswith("\n") and after.count(HEADER) == (not text.strip())
    assert all(comment in after for comment in ("# none yet", "# a", "# b") if comment in text)
    twice = appended(after, {**ENTRY, "id": "Yy345678"}, "0123456789abcdef")
    assert lines_added(after, twice)[0] == "  - id: Yy345678"


def test_one_more_behind_hand_made_ones() -> None:
    after = appended(HAND_MADE, ENTRY, "0123456789abcdef")
    assert lines_added(HAND_MADE, after) == [
        "    - id: Zz345678", "      name: new", '      hash: blake2b:00', '      models: ["gpt-*", small]',
    ]  # fmt: skip
    assert after.endswith("# the end\n")


def test_the_pepper_is_named_where_it_was_not() -> None:
    before = HAND_MADE.replace("pepper_id: 0123456789abcdef\n", "")
    after = appended(before, ENTRY, "fedcba9876543210")
    assert data(after)["pepper_id"] == "fedcba9876543210"
    assert len(lines_added(before, after)) == 5


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_new_value(index: int) -> None:
    after = changed(HAND_MADE, index, {"revoked": "2026-11-22T14:00:00Z"})
    assert data(after)["keys"][index]["revoked"] == "2026-11-22T14:00:00Z"
    if index == 1:
        assert after == HAND_MADE.replace("blake2b:33", "blake2b:33, revoked: 2026-11-22T14:00:00Z")
    else:
        assert lines_added(HAND_MADE, after) == ["      revoked: 2026-11-22T14:00:00Z"]


def test_another_value_and_its_comment() -> None:
    after = changed(HAND_MADE, 0, {"hash": "blake2b:99", "previous": {"hash": "blake2b:11", "until": "2026-11-23T14:00:00Z"}})
    first = data(after)["keys"][0]
    assert (first["hash"], first["previous"]) == ("blake2b:99", {"hash": "blake2b:11", "until": "2026-11-23T14:00:00Z"})
    assert "hash: blake2b:99  # made by hand" in after and "# nothing below" in after and "# do not revoke" in after
    assert data(after)["keys"][1:] == data(HAND_MADE)["keys"][1:]
    again = changed(after, 0, {"previous": {"hash": "blake2b:99", "until": "2026-11-24T14:00:00Z"}})
    assert data(changed(again, 0, {}, ("previous",)))["keys"][0] == {"id": "Ab3dEf9h", "hash": "blake2b:99", "name": "first"}


@pytest.mark.parametrize(("index", "name"), [
    (0, "id"), (0, "hash"), (0, "previous"), (1, "id"), (1, "hash"), (1, "name"), (2, "name"), (2, "tags"),
    (2, "id"), (2, "none"),
])  # fmt: skip
def test_a_value_less(index: int, name: str) -> None:
    wanted = data(HAND_MADE)
    wanted["keys"][index].pop(name, None)
    assert data(changed(HAND_MADE, index, {}, (name,))) == wanted


def test_line_breaks_of_other_systems() -> None:
    text = HAND_MADE.replace("\n", "\r\n")
    after = appended(changed(text, 0, {"revoked": "2026-11-22T14:00:00Z"}), ENTRY, "0123456789abcdef")
    assert len(data(after)["keys"]) == 4 and data(after)["keys"][0]["revoked"] == "2026-11-22T14:00:00Z"


@pytest.mark.parametrize("text", [
    "keys: [{id: Ab3dEf9h, name: a, hash: blake2b:11}]\n",
    "{keys: [], pepper_id: 0123456789abcdef}\n",
    "keys: []\n...\n",
    "keys: &keys []\npepper_id: 0123456789abcdef\n...\n# behind\n",
])  # fmt: skip
def test_what_cannot_be_done_is_said(text: str) -> None:
    before = data(text)["keys"]
    try:
        after = appended(text, ENTRY, "0123456789abcdef")
    except NotEditable:
        return
    assert data(after)["keys"] == [*before, ENTRY]


def test_an_alias_is_not_changed() -> None:
    text = "keys:\n  - &a {id: Ab3dEf9h, name: a, hash: blake2b:11}\n  - *a\n"
    with pytest.raises(NotEditable):
        changed(text, 1, {"revoked": "2026-11-22T14:00:00Z"})


VALUES = st.recursive(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20) | st.integers(-(10**12), 10**12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "hash", "until"]), inner, max_size=2),
    max_leaves=5,
)


@given(VALUES)
def test_written_values_are_read_back(value: Any) -> None:
    assert data(f"keys: {written(value)}\n")["keys"] == value
    text = f"keys:\n  - x: {written(value)}\n"
    assert data(text)["keys"][0]["x"] == value


@pytest.mark.parametrize("word", [
    "yes", "No", "null", "on", "y", "12345678", "1e45678", "0x345678", "Ab3dEf9h", "a.b", "nan", "b:",
])  # fmt: skip
def test_no_yaml_reader_takes_a_word_for_something_else(word: str) -> None:
    assert yaml.safe_load(written(word)) == word


@settings(max_examples=50, deadline=None)  # YAML is read some thirty times in each
@given(st.lists(st.tuples(st.sampled_from(["add", "revoke", "rotate", "drop"]), st.integers(0, 9)), max_size=8))
def test_any_order_of_changes(steps: list[tuple[str, int]]) -> None:
    text, wanted = HAND_MADE, data(HAND_MADE)["keys"]
    for number, (step, at) in enumerate(steps):
        index = at % len(wanted)
        if step == "add":
            entry = {**ENTRY, "name": f"n{number}"}
            text = appended(text, entry, "0123456789abcdef")
            wanted.append(entry)
        elif step == "revoke":
            text = changed(text, index, {"revoked": "2026-11-22T14:00:00Z"})
            wanted[index]["revoked"] = "2026-11-22T14:00:00Z"
        elif step == "rotate":
            previous = {"hash": wanted[index]["hash"], "until": "2026-11-22T14:00:00Z"}
            text = changed(text, index, {"hash": f"blake2b:{number}", "previous": previous})
            wanted[index] |= {"hash": f"blake2b:{number}", "previous": previous}
        else:
            text = changed(text, index, {}, ("previous",))
            wanted[index].pop("previous", None)
    assert data(text)["keys"] == wanted
    kept = ("# the first one", "# do not revoke", "# in braces", "# the end", "# the second tag")
    assert all(comment in text for comment in kept)
