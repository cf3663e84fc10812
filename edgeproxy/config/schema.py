# The JSON Schema of the configuration file, for editors. Generated from the model; docs/config.schema.json is a copy.
"""`schema()` and `text()`: JSON Schema (draft 2020-12) of what may be written in a configuration file."""

from __future__ import annotations

import json
from typing import Any

from edgeproxy.config.model import Config


def schema() -> dict[str, Any]:
    """The schema as a dict; values are described as they are written, with units, and so are defaults."""
    generated = Config.model_json_schema()
    _tidy(generated)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgeproxy configuration",
        **{name: value for name, value in generated.items() if name != "title"},
    }


def text() -> str:
    """The text of docs/config.schema.json: what `edgeproxy check --schema` prints."""
    return json.dumps(schema(), indent=2) + "\n"


def _tidy(node: Any) -> None:
    """Drops pydantic's titles, which only repeat the names of keys. A property may itself be called `title`."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _tidy(value)
    elif isinstance(node, list):
        for value in node:
            _tidy(value)
