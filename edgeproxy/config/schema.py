# The JSON Schemas of the configuration and of rule files, for editors. Generated from the models; docs/ has copies.
"""`schema()` and `text()`: JSON Schema (draft 2020-12) of what may be written in a configuration file, or in a rule file."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from edgeproxy.config.model import Config
from edgeproxy.rules.model import RuleFile

_TITLES: dict[type[BaseModel], str] = {Config: "edgeproxy configuration", RuleFile: "edgeproxy rule file"}


def schema(model: type[BaseModel] = Config) -> dict[str, Any]:
    """The schema as a dict; values are described as they are written, with units, and so are defaults.

    Args:
        model: Config or RuleFile.
    """
    generated = model.model_json_schema()
    _tidy(generated)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": _TITLES[model],
        **{name: value for name, value in generated.items() if name != "title"},
    }


def text(model: type[BaseModel] = Config) -> str:
    """The text of docs/config.schema.json or docs/rules.schema.json: what `check --schema` or `rules schema` prints."""
    return json.dumps(schema(model), indent=2) + "\n"


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
