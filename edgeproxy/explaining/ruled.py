# The rules of the request phase, one after the other: each is asked as the engine asks it, and taken by the engine's Walk.
"""The stage of the request rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.explaining.answer import Named, Outcome, RuleTrace, Stage
from edgeproxy.explaining.carried import passes, unless
from edgeproxy.explaining.own import answer_challenge, answer_content, answer_fault, answer_redirect
from edgeproxy.explaining.trace import clean
from edgeproxy.explaining.ways import RAY
from edgeproxy.faults import client_fault
from edgeproxy.observe.metrics import RouteStats
from edgeproxy.plan import NO_ROUTE
from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.ruleset import Asking, Ruleset, holds
from edgeproxy.rules.walk import Walk

if TYPE_CHECKING:
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.message import Headers, Request
    from edgeproxy.rules.model import RuleModel
    from edgeproxy.rules.rule import Rule

_PREVIEW: Final = 64 * 1024  # as ruling.py holds for rules of a request without a route
_REDIRECT: Final = 302
_CHANGED: Final = frozenset({"rewrite", "route", "set", "skip"})


def rules(ways: Ways) -> Stage | None:
    """All request rules, in order."""
    if ways.outcome is not None:
        return None
    ruleset, plan, request = ways.snapshot.rules, ways.plan, ways.request
    ways.facts = facts = Facts(request, plan.host, plan.client, RAY, ways.clock, ways.snapshot.context)
    if plan.keyed is not None:
        facts.key = plan.keyed.key
    if plan.scored is not None:
        facts.scored = plan.scored
    if ruleset is None:
        return Stage("rules", "passes", "there are no rules")
    asked = _Asked(ways, ruleset, facts)
    traces = [asked.rule(model) for model in ways.snapshot.config.rules.book.rules if model.phase == "request"]
    walk, ways.facts = asked.walk, asked.facts
    if asked.too_large is not None:
        walk, ways.facts = _before_the_body(ruleset, facts, traces)
    ways.decision = walk.decision()
    if walk.hits:
        ways.plan = plan = plan.copy()
        plan.follow(ways.decision, request, RouteStats(NO_ROUTE))
    hits = [rule.id for rule in walk.hits]
    told = f"{', '.join(hits[:10])}{', …' if len(hits) > 10 else ''}" if hits else ""
    count = f"{len(hits)} of {len(traces)} rules hit: {told}" if hits else f"none of {len(traces)} rules matches"
    if asked.too_large is not None:
        refused = f"413: {asked.too_large}"
        outcome = Outcome(f"the edge answers {refused}", "rules", 413, hits=hits)
        answer_fault(ways, client_fault(413, "body_too_large", asked.too_large), outcome)
        return Stage("rules", "answers", f"{refused}; {count}", rules=traces)
    if walk.final is not None and (says := _end(ways, walk.final, hits)) is not None:
        return Stage("rules", "answers", f"{says}; {count}", rules=traces)
    if ways.body_unknown:
        return Stage("rules", "waits", f"{count}; some depend on the body, which was not given", rules=traces)
    changed = any(rule.acts and rule.model.action in _CHANGED for rule in walk.hits)
    return Stage("rules", "changes" if changed else "passes", count, rules=traces)


def _before_the_body(ruleset: Ruleset, facts: Facts, traces: list[RuleTrace]) -> tuple[Walk, Facts]:
    """How far the rules come without a body: the engine waits for it once, before a group of rules."""
    asking = Asking(ruleset, ruleset.prepare(facts), facts, lambda: 0.0, lambda _rule, _error: None)
    asking.go()
    hits = {rule.id for rule in asking.walk.hits}
    for each in traces:
        if each.state in ("acts", "logs") and each.id not in hits:
            each.state, each.says = "not reached", "it is asked together with rules that read the body, and that is refused"
    return asking.walk, asking.facts


def _end(ways: Ways, rule: Rule, hits: list[str]) -> str | None:
    """What the rule that ended the matter makes of the request; None: it lets it go on."""
    if rule.challenges:
        said = f"rule '{rule.id}' ({rule.model.action}), {unless(ways)}"
        return f"{answer_challenge(ways, said, 'rules', rule=rule.id, hits=hits)}: {said}"
    if rule.fault is not None:
        status = rule.fault.status
        says = f"{status}: rule '{rule.id}' ({rule.model.action})"
        outcome = Outcome(f"the edge answers {says}", "rules", status, rule=rule.id, hits=hits)
        if rule.body is None:
            answer_fault(ways, rule.fault, outcome)
        else:
            answer_content(ways, status, rule.content_type, outcome)
        return says
    location = ways.decision.location if ways.decision is not None else None
    if location is None:
        return None
    status = rule.model.status or _REDIRECT
    says = f"rule '{rule.id}' redirects: {status} to {clean(location)}"
    answer_redirect(ways, status, location, Outcome(says, "rules", status, rule=rule.id, hits=hits))
    return says


class _Asked:
    """The rules so far.

    Attributes:
        facts: in force for the next rule.
        too_large: why the request is refused when a rule wants its body; None while none does.
    """

    def __init__(self, ways: Ways, ruleset: Ruleset, facts: Facts) -> None:
        self.ways = ways
        self.rules = {rule.id: rule for rule in ruleset.rules}
        self.facts = facts
        self.errors: dict[str, str] = {}
        # A sampled rule is shown as if it acted.
        self.walk = Walk(ways.request, lambda: 0.0, self.broken)
        self.walk.cleared = lambda rule: bool(passes(ways, rule.model.action))
        self.ender = ""
        self.skipped_by: dict[str, str] = {}
        self.too_large: str | None = None

    def broken(self, rule: Rule, error: Exception) -> None:
        """A rule failed."""
        self.errors[rule.id] = f"{type(error).__name__}: {error}"

    def rule(self, model: RuleModel) -> RuleTrace:
        """The next rule."""
        self.ways.hurry()
        made = RuleTrace(
            model.id, model.action, "no match", "", mode=model.mode, description=model.description, sample=model.sample
        )
        if not model.enabled:
            made.state, made.says = "disabled", "enabled: false"
        elif self.ender:
            made.state, made.says = "not reached", self.ender
        elif model.id in self.walk.left_out:
            made.state, made.says = "skipped", f"rule '{self.skipped_by[model.id]}' leaves it out"
        else:
            self.ask(self.rules[model.id], made)
        return made

    def ask(self, rule: Rule, made: RuleTrace) -> None:
        """Asks one rule, and takes it if it holds."""
        if self.waits(rule):
            self.hold(rule)
            if self.too_large is not None:
                made.state, made.says = "not reached", f"it reads the body, and that is refused: {self.too_large}"
                self.ender = "the body, which an earlier rule wants to read, is refused"
                return
        facts = self.facts
        made.expression = self.ways.snapshot.sheet(rule, self.ways.veil).ask(facts)
        if not holds(rule, facts, self.broken):
            self.missed(rule, made)
            return
        before, left_out = self.walk.request, set(self.walk.left_out)
        self.facts = self.walk.take(rule, facts)
        if rule not in self.walk.hits and rule.challenges and rule.id not in self.errors:
            made.state, made.says = "passed", f"holds, and lets the request through: {passes(self.ways, rule.model.action)}"
            return
        if rule not in self.walk.hits:
            made.state, made.says = "failed", f"holds, but cannot be carried out: {self.errors[rule.id]}"
            return
        self.skipped_by |= dict.fromkeys(self.walk.left_out - left_out, rule.id)
        made.state = "acts" if rule.acts and rule.model.action != "log" else "logs"
        made.says = self.sentence(rule)
        if rule.id in self.errors:
            made.says += f"; but for a part that cannot be done: {self.errors[rule.id]}"
        if self.walk.request is not before:
            made.changes = changes(before, self.walk.request, self.ways)
        if self.walk.over:
            self.ender = f"rule '{rule.id}' ({rule.model.action}) ended the matter"

    def missed(self, rule: Rule, made: RuleTrace) -> None:
        """A rule that does not hold."""
        if rule.id in self.errors:
            made.state, made.says = "failed", f"counts as not matching: {self.errors[rule.id]}"
        elif self.facts.body is None and self.waits(rule):
            made.state, made.says = "waits", "it reads the body, which was not given (--data)"
            self.ways.body_unknown = True
        else:
            made.says = "does not hold"

    def waits(self, rule: Rule) -> bool:
        """Whether a rule that can hold reads a body that was not held yet: the engine's question."""
        if self.facts.body is not None or not rule.waits(self.facts.request):
            return False
        return bool(self.ways.snapshot.may(rule)(self.facts))

    def hold(self, rule: Rule) -> None:
        """The body is read for a rule."""
        ways, request = self.ways, self.facts.request
        find = ways.snapshot.router.find
        route = ways.plan.route if request is ways.request else find(request.authority, request.target)
        limit = ways.snapshot.client.max_body if route is None else route.max_body
        length, content = ways.request.length, ways.question.body
        if length is not None and length > limit:
            self.too_large = f"The request body is larger than the {limit} bytes allowed."
            return
        most = _PREVIEW if route is None else route.preview
        if not ways.body_for:
            ways.body_for.append(f"rule '{rule.id}' looks at it; up to {most} bytes are held")
        if content is not None:
            self.facts.body = HeldBody(content[:most], len(content) > most)

    def sentence(self, rule: Rule) -> str:
        """What a rule that holds does."""
        model = rule.model
        if not rule.acts:
            return f"holds; mode log: it would {model.action}, and is only told of"
        sampled = f" (on {model.sample:.0%} of such requests)" if rule.sampled else ""
        return f"holds; {self.deed(rule)}{sampled}"

    def deed(self, rule: Rule) -> str:
        """What it does, as a sentence."""
        model = rule.model
        if rule.challenges:
            return "challenges a client that has no clearance"
        if rule.fault is not None:
            return f"answers {rule.fault.status}"
        if rule.location is not None:
            return f"redirects: {model.status or _REDIRECT} to {clean(self.walk.location or b'')}"
        if model.action == "skip":
            if model.skip is None:
                return "leaves out all later rules"
            return f"leaves out {', '.join((*model.skip.rules, *(f'the stage {name}' for name in model.skip.stages)))}"
        if model.action == "route":
            host = f", with Host {model.host}" if model.host is not None else ""
            return f"chooses the upstream {model.upstream}{host}"
        if model.action == "set":
            words = [f"tags it {', '.join(model.tags)}"] if model.tags else []
            words += [f"puts it under {', '.join(model.limits)}"] if model.limits else []
            return ", ".join([*words, *([f"gives it {model.priority} priority"] if model.priority else [])])
        said = {"allow": "no later rule runs", "rewrite": "changes the request"}
        return said.get(model.action, "is told of")


def changes(before: Request, now: Request, ways: Ways) -> list[Named]:
    """What is different between two requests."""
    rows = changes_of(before.headers, now.headers, ways)
    if now.target != before.target:
        rows.insert(0, Named("target", f"{clean(before.target)} → {clean(now.target)}"))
    return rows


def changes_of(before: Headers, now: Headers, ways: Ways) -> list[Named]:
    """The field lines that went and came."""
    old, new = list(before), list(now)
    for line in before:
        if line in new:
            new.remove(line)
            old.remove(line)
    rows = [Named(f"- {name.decode('latin-1')}", ways.veil.header(name, value)) for name, value in old]
    return rows + [Named(f"+ {name.decode('latin-1')}", ways.veil.header(name, value)) for name, value in new]
