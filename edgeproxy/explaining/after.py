# What comes behind the request rules: the way that they chose, the body, the upstream, and the reply with its rules.
"""Stages from re-routing to the reply."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgeproxy.explaining.answer import Named, Outcome, RuleTrace, Stage
from edgeproxy.explaining.before import candidates, described
from edgeproxy.explaining.own import answer_fault
from edgeproxy.explaining.question import encoded
from edgeproxy.explaining.ruled import changes_of
from edgeproxy.explaining.trace import clean
from edgeproxy.explaining.ways import RAY
from edgeproxy.faults import Fault, client_fault, edge_fault
from edgeproxy.message import Headers, Reply
from edgeproxy.policy.headers import RAY as RAY_FIELD
from edgeproxy.policy.headers import REPLY_FIELDS, mark_stream
from edgeproxy.preview import read_pool
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.ruleset import holds

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.rules.model import RuleModel
    from edgeproxy.rules.rule import Rule

_TYPE: Final = b"content-type"


def routed_again(ways: Ways) -> Stage | None:
    """Where rules send the request, and what becomes of one that no route takes."""
    if ways.outcome is not None:
        return None
    plan, decision = ways.plan, ways.decision
    fault, route = plan.fault, plan.route
    if fault is not None:
        says = f"{fault.status}: {fault.message}"
        answer_fault(ways, fault, Outcome(f"the edge answers {says}", "routed", fault.status, hits=_hits(ways)))
        return Stage("routed", "answers", says)
    if decision is None or route is None:
        return None
    chosen = f"a rule chose the upstream {decision.upstream}" if decision.upstream is not None else ""
    if plan.forward is None:
        return Stage("routed", "changes", chosen) if chosen else None
    says = f"routed again after a rewrite; {described(route)}{'; ' if chosen else ''}{chosen}"
    return Stage("routed", "changes", says, candidates(ways, plan.forward.target, route))


def body(ways: Ways) -> Stage | None:
    """How large it may be, whether it is read, and what it says of the upstream."""
    route, plan = ways.plan.route, ways.plan
    if ways.outcome is not None or route is None:
        return None
    length, content = ways.request.length, ways.question.body
    details = [Named("max_body", f"{route.max_body} bytes")]
    if length is not None and length > route.max_body:
        return _refused(ways, _too_large(route), details)
    if plan.pool is not None and (plan.direct or plan.chosen or not route.reads_body or length == 0):
        ways.upstream = str(plan.pool)
        return Stage("body", "passes", _why(ways, length), details)
    if plan.pool is None:
        return _refused(ways, edge_fault(503, "upstream_gone", "The upstream was taken out of the configuration."), details)
    details.append(Named("preview", f"{route.preview} bytes"))
    ways.body_for.append(f"route {route.name} chooses the upstream by the model")
    if length is not None and length > route.preview:
        found = read_pool(b"", True, route)
    elif content is None:
        says = f"{_reasons(ways)}; it was not given (--data), so the upstream is not known: one of {', '.join(_possible(route))}"
        ways.outcome = Outcome(f"depends on the body: {says}", "body", hits=_hits(ways))
        return Stage("body", "waits", says, details)
    else:
        found = read_pool(content[: route.preview], len(content) > route.preview, route)
    if isinstance(found, Fault):
        return _refused(ways, found, details)
    ways.upstream = str(found)
    return Stage("body", "passes", f"{_reasons(ways)}: upstream {ways.upstream}", details)


def _why(ways: Ways, length: int | None) -> str:
    if length == 0:
        return "there is none"
    return _reasons(ways) if ways.body_for else "not read: it streams to the upstream"


def _reasons(ways: Ways) -> str:
    return f"read first, because {' and '.join(ways.body_for)}"


def _possible(route: Route) -> list[str]:
    return list(dict.fromkeys([*route.models.values(), *(name for _, name in route.model_prefixes), route.upstream]))


def _too_large(route: Route) -> Fault:
    return client_fault(413, "body_too_large", f"The request body is larger than the {route.max_body} bytes allowed.")


def _refused(ways: Ways, fault: Fault, details: list[Named]) -> Stage:
    says = f"{fault.status}: {fault.message}"
    answer_fault(ways, fault, Outcome(f"the edge answers {says}", "body", fault.status, hits=_hits(ways)))
    return Stage("body", "answers", says, details)


def _hits(ways: Ways) -> list[str]:
    return [rule.id for rule in ways.decision.hits] if ways.decision is not None else []


def upstream(ways: Ways) -> Stage | None:
    """Who gets the request, and what it looks like there."""
    name = ways.upstream
    if ways.outcome is not None or name is None:
        return None
    settings, request = ways.snapshot.upstreams[name], ways.request
    targets = [f"{'https' if target.tls else 'http'}://{target.label}" for target in settings.targets]
    how = f", {settings.balance}" if len(targets) > 1 else ""
    authority = request.authority if settings.preserve_host else settings.targets[0].authority
    lines = ways.plan.upstream_head(request, authority).split(b"\r\n")
    details = [Named("request", clean(lines[0]))]
    for line in lines[1:]:
        field, _, value = line.partition(b": ")
        value = b"<the request's id>" if field == RAY_FIELD else value
        details.append(Named(field.decode("latin-1"), ways.veil.header(field, value)))
    says = f"{name}: {', '.join(targets)}{how}"
    ways.outcome = Outcome(f"goes to the upstream {name} ({', '.join(targets)})", "upstream", upstream=name, hits=_hits(ways))
    return Stage("upstream", "passes", says, details)


# -- the reply -------------------------------------------------------------------------------------------------------


def reply(ways: Ways) -> Stage:
    """What the client gets of the edge's own, and the rules of the response phase."""
    given = ways.reply if ways.reply is not None else _given(ways)
    traces = _Replying(ways, given).all() if ways.reply_rules else []
    hits = [each.id for each in traces if each.state in ("acts", "logs")]
    if ways.outcome is not None:
        ways.outcome.hits += hits
    own = [*ways.plan.reply_fields, (RAY_FIELD, b"<the request's id>")]
    details = [Named(name.decode("ascii"), clean(value)) for name, value in own]
    if given is None:
        waits = any(each.state == "waits" for each in traces)
        says = "the upstream's, with these fields of the edge" + ("; some rules wait for it" if waits else "")
        return Stage("reply", "waits" if waits else "passes", says, details, traces)
    if ways.reply is not None:
        details = [*(Named(name.decode("ascii"), ways.veil.header(name, value)) for name, value in ways.reply.headers), *details]
    source = "the edge's own" if ways.reply is not None else "the upstream's, as it was given"
    changed = any(each.changes for each in traces)
    return Stage("reply", "changes" if changed else "passes", f"{given.status}, {source}", details, traces)


def _given(ways: Ways) -> Reply | None:
    """The upstream's reply as it was told; None: it was not."""
    question = ways.question
    if question.status is None:
        return None
    headers: Headers = [
        (encoded(name.lower()), encoded(value.strip()))
        for name, value in question.reply_headers or [] if not name.startswith(":")
    ]  # fmt: skip
    kept = [line for line in headers if line[0] not in REPLY_FIELDS or line[0] == _TYPE]
    found = Reply(question.status, kept, None)
    if any(name == _TYPE and value[:17].lower() == b"text/event-stream" for name, value in kept):
        mark_stream(found.headers)
    return found


class _Replying:
    """The rules of the response phase, as `Answering` asks them."""

    def __init__(self, ways: Ways, given: Reply | None) -> None:
        self.ways = ways
        self.reply = given
        self.errors: dict[str, str] = {}
        plan = ways.plan
        self.facts = facts = Facts(
            plan.forward or ways.request, plan.host, plan.client, RAY, ways.clock, ways.snapshot.context
        )
        facts.original = ways.request
        if ways.plan.scored is not None:
            facts.scored = ways.plan.scored
        self.left_out = ways.decision.left_out if ways.decision is not None else frozenset[str]()
        ruleset = ways.snapshot.rules
        self.rules = {rule.id: rule for rule in ruleset.responses.rules} if ruleset is not None else {}
        self.possible = {rule.id for rule in ruleset.responses.candidates(facts, self.broken)} if ruleset is not None else set()
        if given is not None:
            facts.reply = given
        self.first = given.headers.copy() if given is not None else []

    def broken(self, rule: Rule, error: Exception) -> None:
        """A rule failed."""
        self.errors[rule.id] = f"{type(error).__name__}: {error}"

    def all(self) -> list[RuleTrace]:
        """Each rule, in order."""
        return [self.rule(model) for model in self.ways.snapshot.config.rules.book.rules if model.phase == "response"]

    def rule(self, model: RuleModel) -> RuleTrace:
        """The next rule."""
        self.ways.hurry()
        made = RuleTrace(
            model.id, model.action, "no match", "", mode=model.mode, description=model.description, sample=model.sample
        )
        if not model.enabled:
            made.state, made.says = "disabled", "enabled: false"
        elif model.id in self.left_out:
            made.state, made.says = "skipped", "a rule of the request phase leaves it out"
        else:
            self.ask(self.rules[model.id], made)
        return made

    def ask(self, rule: Rule, made: RuleTrace) -> None:
        """Asks one rule, and carries it out if it holds."""
        made.expression = self.ways.snapshot.sheet(rule, self.ways.veil).ask(self.facts)
        possible = rule.id in self.possible
        if possible and self.reply is None:
            made.state, made.says = "waits", "depends on the reply: give --status and --response-header"
        elif not possible or not holds(rule, self.facts, self.broken):
            failed = rule.id in self.errors
            made.state = "failed" if failed else "no match"
            made.says = f"counts as not matching: {self.errors[rule.id]}" if failed else "does not hold"
        else:
            self.take(rule, made)

    def take(self, rule: Rule, made: RuleTrace) -> None:
        """A rule that holds."""
        assert self.reply is not None
        if rule.changes is None or not rule.acts:
            made.state = "logs"
            made.says = "holds; is told of" if rule.acts else "holds; mode log: it would rewrite, and is only told of"
            return
        before = self.reply.headers
        self.reply.headers, _ = rule.changes.headers(before, self.facts, partial(self.broken, rule))
        made.state, made.says = "acts", "holds; changes the reply"
        if rule.id in self.errors:
            made.says += f"; but for a part that cannot be done: {self.errors[rule.id]}"
        made.changes = changes_of(before, self.reply.headers, self.ways)
        self.facts = self.facts.following(self.facts.request)
        self.facts.reply = self.reply
        self.facts.original_reply = self.reply.with_headers(self.first)
