# A file of keys is changed as text, at the places of its values: comments, order and style of everything else stay.
"""`appended` and `changed`: a text becomes another text. Both check that it says what it should, and refuse otherwise."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import yaml

from edgeproxy.config.document import parse
from edgeproxy.config.problems import ConfigError

HEADER: Final = (
    "# API keys of the edge: hashes, not the keys themselves. Written by 'edgeproxy keys'; hand-made changes and comments stay.\n"
)
# What every YAML reader takes for text. Everything else is quoted.
_PLAIN: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z")
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"})


# libyaml's, ten times as quick, where PyYAML was built with it. Both count characters.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotEditable(ValueError):
    """The file is written in a way that this cannot change; nothing was."""


def appended(text: str, entry: dict[str, Any], pepper_id: str) -> str:
    """The text with one more key at its end.

    Args:
        entry: as the file shall have it: text, numbers, lists and mappings.
        pepper_id: for a file that does not say it yet.

    Raises: NotEditable. The text is a file of keys without problems.
    """
    if not text.strip():
        text = HEADER
    before = _data(text)
    found = _keys(text)
    if before.get("pepper_id") is None:
        text = _with_pepper_id(text, found, pepper_id)
        found = _keys(text)
    result = _with_entry(text, found, entry)
    wanted = {"pepper_id": pepper_id, **before, "keys": [*(before.get("keys") or []), entry]}
    return _checked(result, wanted)


def changed(text: str, index: int, values: dict[str, Any], removed: tuple[str, ...] = ()) -> str:
    """The text with values of one key set anew, or taken out.

    Raises: NotEditable.
    """
    wanted = _data(text)
    for name, value in values.items():
        wanted["keys"][index][name] = value
        text = _with_value(text, index, name, value)
    for name in removed:
        wanted["keys"][index].pop(name, None)
        text = _without(text, index, name)
    return _checked(text, wanted)


def written(value: Any) -> str:
    """A value in flow style, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str) and (_TIME.fullmatch(value) or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS)):
        return value
    return json.dumps(value)


def _with_pepper_id(text: str, keys: yaml.Node | None, pepper_id: str) -> str:
    root = _root(text)
    at = root.start_mark.index if isinstance(root, yaml.MappingNode) and keys is not None else len(text)
    if isinstance(root, yaml.MappingNode) and root.flow_style and root.value:
        raise NotEditable("the file is one mapping in braces: write each of its keys on a line of its own")
    line = f"pepper_id: {written(pepper_id)}\n"
    return text[:at] + ("" if at == 0 or text[at - 1] == "\n" else "\n") + line + text[at:]


def _with_entry(text: str, keys: yaml.Node | None, entry: dict[str, Any]) -> str:
    if keys is None:
        return f"{_ended(text)}keys:\n{_block(entry, 2)}"
    if isinstance(keys, yaml.SequenceNode) and keys.value and not keys.flow_style:
        at = _line_end(text, _last(keys.value[-1]))
        return f"{_ended(text[:at])}{_block(entry, keys.start_mark.column)}{text[at:].removeprefix(chr(10))}"
    if isinstance(keys, yaml.SequenceNode) and keys.value:
        raise NotEditable("the list 'keys' stands in brackets: write each key on a line of its own, behind '- '")
    start, end = keys.start_mark.index, keys.end_mark.index
    if isinstance(keys, yaml.ScalarNode) and not keys.value:  # `keys:` and nothing behind it
        end = start
    at = _line_end(text, end)
    return f"{text[:start].rstrip(' ')}{text[end:at].rstrip()}\n{_block(entry, 2)}{text[at:].removeprefix(chr(10))}"


def _block(entry: dict[str, Any], indent: int) -> str:
    blanks = " " * indent
    lines = [f"{name}: {written(value)}" for name, value in entry.items()]
    return f"{blanks}- " + f"\n{blanks}  ".join(lines) + "\n"


def _with_value(text: str, index: int, name: str, value: Any) -> str:
    item = _item(text, index)
    for key_node, value_node in item.value:
        if key_node.value == name:
            start, end = value_node.start_mark.index, _last(value_node)
            if not value_node.flow_style if isinstance(value_node, yaml.CollectionNode) else not value_node.value:
                return _with_value(_without(text, index, name), index, name, value)  # a block, or nothing at all
            return text[:start] + written(value) + text[end:]
    after = next((value_node for key_node, value_node in item.value if key_node.value == "hash"), item.value[-1][1])
    if item.flow_style:
        at = _last(after)
        return f"{text[:at]}, {name}: {written(value)}{text[at:]}"
    at = _line_end(text, _last(after))
    return f"{_ended(text[:at])}{' ' * item.start_mark.column}{name}: {written(value)}\n{text[at:].removeprefix(chr(10))}"


def _without(text: str, index: int, name: str) -> str:
    item = _item(text, index)
    for place, (key_node, value_node) in enumerate(item.value):
        if key_node.value != name:
            continue
        if item.flow_style:
            start = _last(item.value[place - 1][1]) if place else key_node.start_mark.index
            end = _last(value_node) if place else item.value[1][0].start_mark.index
            return text[:start] + text[end:]
        end = _line_end(text, _last(value_node))
        if place == 0:  # the next one takes its place behind the dash
            return text[: key_node.start_mark.index] + text[end:].lstrip("\n ")
        return text[: key_node.start_mark.index].rstrip(" ") + text[end:].removeprefix("\n")
    return text


def _root(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=_LOADER)


def _keys(text: str) -> yaml.Node | None:
    root = _root(text)
    for key_node, value_node in root.value if isinstance(root, yaml.MappingNode) else ():
        if key_node.value == "keys":
            found: yaml.Node = value_node
            return found
    return None


def _item(text: str, index: int) -> yaml.MappingNode:
    keys = _keys(text)
    assert isinstance(keys, yaml.SequenceNode)
    item = keys.value[index]
    if not isinstance(item, yaml.MappingNode):
        raise NotEditable("a key is an alias of another: write it out")
    return item


def _last(node: yaml.Node) -> int:
    """Where a value ends: PyYAML lets blocks reach over the comments behind them."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _line_end(text: str, at: int) -> int:
    """The line break that ends the line of a place; the end of the text where there is none."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _data(text: str) -> dict[str, Any]:
    try:
        return dict(parse(text.encode("utf-8"), "", starts="keys").data)
    except ConfigError:
        return {}


def _checked(text: str, wanted: dict[str, Any]) -> str:
    try:
        document = parse(text.encode("utf-8"), "", starts="keys")
    except ConfigError as error:
        raise NotEditable(error.problems[0].message) from error
    if document.problems or document.data != wanted:
        raise NotEditable("the file is written in a way that cannot be changed from here")
    return text
