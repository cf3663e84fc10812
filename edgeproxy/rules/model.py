# Rule files as data: every key of a rule, its type and bound. What an expression means is the parser's business.
"""Pydantic models of rule files, and `RuleBook`: all files of a configuration, as it travels to the workers."""

from __future__ import annotations

import re
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
from edgeproxy.policy.normalise import path_problem
from edgeproxy.policy.routing import parse_authority

MAX_RULES: Final = 10_000
MAX_BODY: Final = 30_000  # bytes of a rule's own answer, as at Cloudflare
MAX_HEADERS: Final = 64  # header changes of one rule
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")  # RFC 9110 §5.6.2, without '_': upstreams confuse it with '-'
_FIELD_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]{0,4094}[\x21-\x7e])?)?")

Action = Literal[
    "block", "challenge", "managed_challenge", "js_challenge", "skip", "log", "allow", "redirect", "rewrite", "route", "set"
]
CHALLENGES: Final = frozenset({"challenge", "managed_challenge", "js_challenge"})
RESPONSE_ACTIONS: Final = frozenset({"rewrite", "log"})

# Keys that only some actions have.
KEYS: Final[dict[str, frozenset[str]]] = {
    "path": frozenset({"rewrite"}),
    "path_expression": frozenset({"rewrite"}),
    "query": frozenset({"rewrite"}),
    "query_expression": frozenset({"rewrite"}),
    "headers": frozenset({"rewrite"}),
    "upstream": frozenset({"route"}),
    "host": frozenset({"route"}),
    "tags": frozenset({"set"}),
    "cache": frozenset({"set"}),
    "limits": frozenset({"set"}),
    "priority": frozenset({"set"}),
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


def _short_header(value: Any) -> Any:
    """`x-a: text` for `x-a: {text: text}`."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    return {"text": str(value)}


def _header_name(value: str) -> str:
    if _TOKEN.fullmatch(value) is None or len(value) > 128:
        raise Invalid(f"{quote(value)} is not the name of a header", "letters, digits and '-', like x-tenant")
    return value.lower()


def _header_text(value: str) -> str:
    if _FIELD_VALUE.fullmatch(value) is None:
        raise Invalid(f"{quote(value)} cannot be the value of a header", "printable ASCII, no blank at either end")
    return value


def _path(value: str) -> str:
    problem = "it begins with '/'" if not value.startswith("/") else None
    if problem is None:
        problem = "a '?' begins the query: use the key 'query'" if "?" in value else path_problem(value.encode("utf-8"))
    if problem is not None:
        raise Invalid(f"{quote(value)} is not a path that can be sent", problem)
    return value


def _query(value: str) -> str:
    if value.startswith("?") or not value.isascii() or (value and path_problem(b"/?" + value.encode("ascii")) is not None):
        raise Invalid(f"{quote(value)} is not a query that can be sent", "without '?', percent-encoded; '' for none")
    return value


def _tag(value: str) -> str:
    if not value.isascii() or not value.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(value) > 64:
        raise Invalid(f"{quote(value)} is not a tag", "letters, digits, '-', '_' and '.', at most 64")
    return value


def _authority(value: str) -> str:
    if parse_authority(value.encode("utf-8", "replace")) is None:
        raise Invalid(f"{quote(value)} is not a host", "like api.example or api.example:8443")
    return value


def _later(value: Any, info: ValidationInfo) -> Any:
    if value is None:
        return value
    raise Invalid(f"'{info.field_name}' is not built yet: remove it", "a setting that is silently ignored would be worse")


Stage = Literal["bots", "limits", "cache"]
HeaderName = Annotated[StrictStr, AfterValidator(_header_name)]
HeaderText = Annotated[StrictStr, AfterValidator(_header_text)]
RuleId = Annotated[StrictStr, AfterValidator(_id)]
AnswerBody = Annotated[StrictStr, AfterValidator(_body)]
ContentType = Annotated[StrictStr, AfterValidator(_content_type)]
ListName = Annotated[StrictStr, AfterValidator(_list_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListModel(_Section):
    """A list that expressions name as `$name`."""

    kind: Literal["ip", "string", "number"] | None = Field(
        default=None, description="What it holds; absent: numbers if all are, else addresses if all are, else strings."
    )
    items: tuple[Annotated[str, PlainValidator(_item, json_schema_input_type=str | int)], ...] = Field(
        default=(), description="The items."
    )
    file: StrictStr | None = Field(
        default=None, description="Or a file with one item a line ('#' begins a comment), beside the rule file."
    )


ListEntry = Annotated[ListModel, BeforeValidator(_short_list, json_schema_input_type=ListModel | tuple[str | int, ...])]


class Skip(_Section):
    """What a skip leaves out."""

    rules: tuple[RuleId, ...] = Field(default=(), description="The ids of rules that come later.")
    stages: tuple[Stage, ...] = Field(default=(), description="Stages behind the rules: bots, limits, cache.")


class HeaderValue(_Section):
    """What a header is set to: text, or `{expression: …}`."""

    text: HeaderText | None = Field(default=None, description="As it is.")
    expression: StrictStr | None = Field(default=None, description="Or what gives it; missing: the header stays as it was.")


HeaderEntry = Annotated[HeaderValue, BeforeValidator(_short_header, json_schema_input_type=HeaderValue | str | int)]


class HeaderChanges(_Section):
    """What a rewrite does to headers, in this order."""

    remove: tuple[HeaderName, ...] = Field(default=(), max_length=MAX_HEADERS, description="Names of headers to take out.")
    set: dict[HeaderName, HeaderEntry] = Field(
        default_factory=dict, max_length=MAX_HEADERS, description="One line of this name instead of all that are there."
    )
    add: dict[HeaderName, HeaderEntry] = Field(
        default_factory=dict, max_length=MAX_HEADERS, description="One more line of this name."
    )


class RuleModel(_Section):
    """One rule."""

    id: RuleId = Field(description="A name, unique over all files; it stands in metrics and logs.")
    expression: StrictStr = Field(description="When the rule acts, in the rules language.")
    action: Action = Field(description="What it does.")
    description: StrictStr = Field(default="", description="For people.")
    enabled: StrictBool = Field(default=True, description="false: checked, but never run.")
    phase: Literal["request", "response"] = Field(
        default="request", description="When it runs; in the response phase there are 'rewrite' (of headers) and 'log'."
    )
    mode: Literal["act", "log"] = Field(default="act", description="log: hits are counted and logged, nothing is done.")
    sample: Annotated[float, PlainValidator(_share, json_schema_input_type=float)] = Field(
        default=1.0, description="The share of matching requests it acts on."
    )
    status: StrictInt | None = Field(
        default=None, description="block: 400 to 499 (403); redirect: 301, 302, 303, 307 or 308 (302)."
    )
    body: AnswerBody | None = Field(
        default=None, description="block: the answer's content; absent: the edge's own, in the route's dialect."
    )
    content_type: ContentType | None = Field(
        default=None, description="block: what the body is; absent: JSON, HTML or text, as it begins."
    )
    skip: Annotated[Skip, BeforeValidator(_short_skip, json_schema_input_type=Skip | tuple[str, ...])] | None = Field(
        default=None, description="skip: which rules; absent: all that come later."
    )
    location: Annotated[StrictStr, AfterValidator(_location)] | None = Field(default=None, description="redirect: where to.")
    location_expression: StrictStr | None = Field(default=None, description="redirect: or an expression that gives it.")
    preserve_query: StrictBool = Field(default=False, description="redirect: the request's query goes along.")
    path: Annotated[StrictStr, AfterValidator(_path)] | None = Field(
        default=None, description="rewrite: the path, without query."
    )
    path_expression: StrictStr | None = Field(default=None, description="rewrite: or an expression that gives it.")
    query: Annotated[StrictStr, AfterValidator(_query)] | None = Field(
        default=None, description="rewrite: the query, without '?'; '' takes it away."
    )
    query_expression: StrictStr | None = Field(default=None, description="rewrite: or an expression that gives it.")
    headers: HeaderChanges | None = Field(default=None, description="rewrite: headers of the request, or of the reply.")
    upstream: StrictStr | None = Field(default=None, description="route: the name of an upstream.")
    host: Annotated[StrictStr, AfterValidator(_authority)] | None = Field(
        default=None, description="route: the Host that is sent to it; absent: as the upstream is configured."
    )
    tags: tuple[Annotated[StrictStr, AfterValidator(_tag)], ...] = Field(
        default=(), max_length=32, description="set: words for the access log and events."
    )
    cache: Annotated[Any, BeforeValidator(_later)] = Field(default=None, description="set: settings of the cache; not built yet.")
    limits: tuple[RuleId, ...] = Field(
        default=(), max_length=32, description="set: names of limits with `named: true` that hold for this request."
    )
    priority: Literal["normal", "low"] | None = Field(
        default=None, description="set: low: it waits behind all others for a connection to its upstream; the last rule counts."
    )


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


def challenges(book: RuleBook) -> bool:
    """Whether a rule of a book challenges somebody."""
    return any(rule.enabled and rule.mode == "act" and rule.action in CHALLENGES for rule in book.rules)


class RuleFiles(_Section):
    """What `rules` of a configuration comes to: the names of files, and what was read from them (config/load.py). Both
    travel to the workers, so that all of them have the same rules, whatever happens to the files meanwhile."""

    patterns: tuple[str, ...] = ()
    book: RuleBook = RuleBook()


def _on_or_log(value: Any) -> Any:
    if isinstance(value, bool) or value == "log":
        return value
    raise Invalid(f"expected true, false or 'log', not {describe(value)}")


ShippedFile = Annotated[
    bool | Literal["log"],
    PlainValidator(_on_or_log),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": "log"}]}),
]


class Shipped(_Section):
    """The rule files that come with the edge; they run behind those of 'rules'."""

    baseline: ShippedFile = Field(
        default=True,
        description="Scanners, probes and exploits in heads; 'log': hits are counted and logged, nothing is done.",
    )
    chat: ShippedFile = Field(
        default=True,
        description="On routes with a dialect: methods, content types and sizes that no chat API has; 'log' as above.",
    )


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
