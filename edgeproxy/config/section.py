# What every section of the configuration is made of: its base, and fields with a default as people write it.
"""`Section`, and fields for durations, sizes and numbers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgeproxy.config.units import parse_duration, parse_size


def duration(default: str, description: str) -> Any:
    """A duration's field; the default as it is written."""
    return Field(default=parse_duration(default), description=description, json_schema_extra={"default": default})


def size(default: str, description: str, *, least: str = "0B", most: str = "1TiB") -> Any:
    """A size's field, with its bounds."""
    return Field(
        default=parse_size(default),
        ge=parse_size(least),
        le=parse_size(most),
        description=description,
        json_schema_extra={"default": default},
    )


def count(default: int, description: str, *, least: int = 1, most: int = 1_000_000) -> Any:
    """A number's field, with its bounds."""
    return Field(default=default, ge=least, le=most, description=description)


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors, and nothing changes after it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
