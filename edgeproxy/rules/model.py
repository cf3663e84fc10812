# Rule files as data: every key of a rule, its type and bound. What an expression means is the parser's business.
"""Pydantic models of rule files, and `RuleBook`: all files of a configuration, as it travels to the workers."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
)  # fmt: skip

from edgeproxy.config.problems import Invalid, quote
from edgeproxy.config.units import FROM_FILE, describe

MAX_RULES: Final = 10_000
MAX_BODY: Final = 30_000  # bytes of a rule's own answer, as at Cloudflare

Action = Literal[
    "block", "challenge", "managed_challenge", "js_challenge", "skip", "log", "allow", "redirect", "rewrite", "route", "set"
]
CHALLENGES: Final = frozenset({"challenge", "managed_challenge", "js_challenge"})
NOT_BUILT: Final = {"rewrite": "a rewrite of the request", "route": "another upstream", "set": "tags and settings"}

# Keys that only some actions have.
KEYS: Final[dict[str, frozenset[str]]] = {
    "status": frozenset({"block", "redirect"}),
    "body": frozenset({"block"}),
    "content_type": frozenset({"block"}),
    "skip": frozenset({"skip"}),
    "location": frozenset({"redirect"}),
    "location_expression": frozenset({"redirect"}),
    "preserve_query": frozenset({"redirect"}),
}


def _id(value: str) -> str:
    # It becomes a label of metrics and stands in log lines.
    if not value.isascii() or not value.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(value) > 64:
        raise Invalid(f"{quote(value)} is not an id", "letters, digits, '-', '_' and '.', at most 64")
    return value


def _list_name(value: str) -> str:
    if not value.isascii() or not value.replace("_", "").isalnum() or value != value.lower() or len(value) > 64:
        raise Invalid(f"{quote(value)} is not the name of a list", "lower-case letters, digits and '_', at most 64")
    return value


def _location(value: str) -> str:
    if not value.startswith(("https://", "http://", "/")) or not value.isascii() or not value.isprintable() or " " in value:
        raise Invalid(f"{quote(value)} is not where a redirect can lead", "https://host/path or /path, percent-encoded")
    return value


def _body(value: str) -> str:
    if len(value.encode("utf-8", "surrogatepass")) > MAX_BODY:
        raise Invalid(f"the body is larger than {MAX_BODY} bytes")
    return value


def _content_type(value: str) -> str:
    if "/" not in value or not value.isascii() or not value.isprintable():
        raise Invalid(f"{quote(value)} is not a content type", "like application/json or text/html; charset=utf-8")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise Invalid(f"expected a share above 0, at most 1, not {describe(value)}", "0.1 is every tenth request")
    return float(value)


def _item(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Invalid(f"expected text or a number, not {describe(value)}")
    return str(value)


def _short_list(value: Any) -> Any:
    """`name: [a, b]` for `name: {items: [a, b]}`."""
    return {"items": value} if isinstance(value, list) else value


def _short_skip(value: Any) -> Any:
    return {"rules": value} if isinstance(value, list) else value


RuleId = Annotated[StrictStr, AfterValidator(_id)]
ListName = Annotated[StrictStr, AfterValidator(_list_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListModel(_Section):
    """A list that expressions name as `$name`."""

    kind: Literal["ip", "string", "number"] | None = Field(
        default=None, description="What it holds; absent: numbers if all are, else addresses if all are, else strings."
    )
    items: tuple[Annotated[str, PlainValidator(_item)], ...] = Field(default=(), description="The items.")
    file: StrictStr | None = Field(
        default=None, description="Or a file with one item a line ('#' begins a comment), beside the rule file."
    )


ListEntry = Annotated[ListModel, BeforeValidator(_short_list)]


class Skip(_Section):
    """What a skip leaves out."""

    rules: tuple[RuleId, ...] = Field(min_length=1, description="The ids of rules that come later.")


class RuleModel(_Section):
    """One rule."""

    id: RuleId = Field(description="A name, unique over all files; it stands in metrics and logs.")
    expression: StrictStr = Field(description="When the rule acts, in the rules language.")
    action: Action = Field(description="What it does.")
    description: StrictStr = Field(default="", description="For people.")
    enabled: StrictBool = Field(default=True, description="false: checked, but never run.")
    phase: Literal["request", "response"] = Field(default="request", description="When it runs.")
    mode: Literal["act", "log"] = Field(default="act", description="log: hits are counted and logged, nothing is done.")
    sample: Annotated[float, PlainValidator(_share)] = Field(
        default=1.0, description="The share of matching requests it acts on."
    )
    status: StrictInt | None = Field(
        default=None, description="block: 400 to 499 (403); redirect: 301, 302, 303, 307 or 308 (302)."
    )
    body: Annotated[StrictStr, AfterValidator(_body)] | None = Field(
        default=None, description="block: the answer's content; absent: the edge's own, in the route's dialect."
    )
    content_type: Annotated[StrictStr, AfterValidator(_content_type)] | None = Field(
        default=None, description="block: what the body is; absent: JSON, HTML or text, as it begins."
    )
    skip: Annotated[Skip, BeforeValidator(_short_skip)] | None = Field(
        default=None, description="skip: which rules; absent: all that come later."
    )
    location: Annotated[StrictStr, AfterValidator(_location)] | None = Field(default=None, description="redirect: where to.")
    location_expression: StrictStr | None = Field(default=None, description="redirect: or an expression that gives it.")
    preserve_query: StrictBool = Field(default=False, description="redirect: the request's query goes along.")


class RuleFile(_Section):
    """One rule file."""

    lists: dict[ListName, ListEntry] = Field(default_factory=dict, description="Lists, by name; all files share them.")
    rules: tuple[RuleModel, ...] = Field(default=(), max_length=MAX_RULES, description="Rules, in the order they run.")


class LoadedList(_Section):
    """A list with everything in it, from its file, too."""

    name: str
    kind: Literal["ip", "string", "number"]
    items: tuple[str, ...]


class RuleBook(_Section):
    """All rule files of a configuration, checked: what the workers compile. Order is that of files, then of rules."""

    rules: tuple[RuleModel, ...] = ()
    lists: tuple[LoadedList, ...] = ()


class RuleFiles(_Section):
    """What `rules` of a configuration comes to: the names of files, and what was read from them (config/load.py). Both
    travel to the workers, so that all of them have the same rules, whatever happens to the files meanwhile."""

    patterns: tuple[str, ...] = ()
    book: RuleBook = RuleBook()


def _rule_files(value: Any, info: ValidationInfo) -> RuleFiles:
    if isinstance(value, RuleFiles):
        return value
    if isinstance(value, dict) and info.context != FROM_FILE:
        return RuleFiles.model_validate(value)
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple) or not all(isinstance(each, str) and each for each in patterns):
        raise Invalid(f"expected a list of rule files, not {describe(value)}", "like [rules/*.yaml]")
    return RuleFiles(patterns=tuple(patterns))


def _as_data(rules: RuleFiles) -> dict[str, Any]:
    return rules.model_dump(mode="json")


RulesKey = Annotated[
    RuleFiles,
    PlainValidator(_rule_files),
    PlainSerializer(_as_data, return_type=dict[str, Any], when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
