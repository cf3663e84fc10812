"""The schema is current, and docs/configuration.md says of every key what the schema says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeproxy.config import schema
from edgeproxy.config.load import load
from edgeproxy.config.units import DURATION_PATTERN, SIZE_PATTERN
from edgeproxy.rules.model import RuleFile

from .samples import NOW, Writer

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "configuration.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


def rows() -> Iterator[str]:
    """The reference row of every key that holds a value."""
    whole = schema.schema()
    yield from _rows(whole, whole, "")


def _rows(whole: dict[str, Any], section: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in section["properties"].items():
        inner, suffix = _section_of(whole, field)
        if inner:
            yield from _rows(whole, inner, f"{prefix}{name}{suffix}.")
            continue
        default = "required" if name in section.get("required", ()) else f"`{_written(field.get('default', {}))}`"
        yield f"| `{prefix}{name}` | {_kind(field)} | {default} | {field['description']} |"


def _section_of(whole: dict[str, Any], field: dict[str, Any]) -> tuple[dict[str, Any], str]:
    for part, suffix in (
        (field, ""),
        (field.get("items", {}), "[]"),
        (field.get("additionalProperties", {}), ".<name>"),
    ):
        for option in (part, *part.get("anyOf", ())):
            if "$ref" in option:
                return whole["$defs"][option["$ref"].rpartition("/")[2]], suffix
    return {}, ""


def _written(default: Any) -> str:
    return "none" if default is None else json.dumps(default).replace('"', "")


def _kind(field: dict[str, Any]) -> str:
    options = field.get("anyOf", [field])
    if any(option.get("pattern") == DURATION_PATTERN for option in options):
        return "seconds or duration" if options[0].get("type") == "integer" else "duration"
    if any(option.get("pattern") == SIZE_PATTERN for option in options):
        return "size"
    if any("enum" in option for option in options):
        return ", ".join(f"`{word}`" for option in options for word in option.get("enum", ()) if isinstance(word, str))
    if {"const": "log"} in options:
        return "true, false or `log`"
    names = {
        "string": "text", "integer": "number", "number": "number", "boolean": "true, false", "object": "mapping", "array": "list",
    }  # fmt: skip
    kind = " or ".join(dict.fromkeys(names[option["type"]] for option in options if option.get("type") in names))
    return kind + " or `auto`" if {"const": "auto"} in options else kind


def test_the_schema_files_are_current() -> None:
    """Otherwise: edgeproxy check --schema > docs/config.schema.json; edgeproxy rules schema > docs/rules.schema.json."""
    assert (DOCS / "config.schema.json").read_text("utf-8") == schema.text()
    assert (DOCS / "rules.schema.json").read_text("utf-8") == schema.text(RuleFile)


def test_the_schema_describes_values_as_they_are_written() -> None:
    whole = schema.schema()
    head = whole["$defs"]["Client"]["properties"]["max_head"]
    assert head["default"] == "32KiB"
    assert [option["type"] for option in head["anyOf"]] == ["string", "integer"]
    assert whole["additionalProperties"] is False
    assert all(section["additionalProperties"] is False for section in whole["$defs"].values())
    assert "title" not in json.dumps(whole).replace('"title": "edgeproxy configuration"', "")


def test_every_default_of_the_schema_is_accepted_as_it_is_written(files: Writer) -> None:
    """An editor offers them; each has to be valid in the file."""
    whole = schema.schema()
    data = yaml.safe_load(files.text())
    _fill(whole, whole, data)
    assert data["client"]["timeouts"]["head"] == "10s"
    assert data["upstreams"]["chat"]["timeouts"]["total"] == "off"
    del data["access_log"], data["events"], data["keys"], data["upstreams"]["chat"]["key"]  # have no defaults of their own
    for section in (data["bots"], *(route["bots"] for route in data["routes"])):
        del section["slow"]  # neither has its score
    assert files.problems(json.dumps(data)) == []


def _fill(whole: dict[str, Any], section: dict[str, Any], data: dict[str, Any]) -> None:
    for name, field in section["properties"].items():
        inner, suffix = _section_of(whole, field)
        if not inner:
            if "default" in field and field["default"] is not None:
                data.setdefault(name, field["default"])
            continue
        value = data.setdefault(name, field.get("default", []) if suffix == "[]" else {})
        for item in value if suffix == "[]" else value.values() if suffix else (value,):
            _fill(whole, inner, item)


def test_the_reference_has_the_row_of_every_key_and_no_other() -> None:
    written = [line for line in GUIDE.splitlines() if re.match(r"\| `[a-z_]+[.\[`]", line)]
    assert sorted(written) == sorted(rows())


def test_the_guide_has_complete_examples() -> None:
    assert sum("\nroutes:" in block and "listen:" in block for block in BLOCKS) >= 2
    assert len(BLOCKS) > 8


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_the_examples_of_the_guide_are_right(files: Writer, block: str) -> None:
    """A complete example as it stands, a fragment put over the smallest configuration."""
    block = re.sub(
        r"[\w./-]+\.pem",
        lambda found: str(files.key if found[0].endswith("-key.pem") else files.cert),
        block,
    )
    loader = yaml.BaseLoader  # text as it stands: `1.2`, `off`
    parts = yaml.load(files.text(), loader) | yaml.load(block, loader)
    if "upstreams" in parts and "routes" not in yaml.load(block, loader):
        first = next(iter(parts["upstreams"]))
        parts["routes"] = [{"upstream": first}]
    complete = "listen:" in block and "routes:" in block
    path = files.write(block if complete else _plain(parts))
    load(path, now=NOW)


def _plain(parts: Any) -> str:
    """YAML of text values in which every scalar is read by its looks again."""
    if isinstance(parts, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_plain(value)}" for key, value in parts.items()) + "}"
    if isinstance(parts, list):
        return "[" + ", ".join(_plain(value) for value in parts) + "]"
    plain = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?|true|false|null", parts)
    return str(parts) if plain else json.dumps(parts)
