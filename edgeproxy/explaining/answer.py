# What an explanation says, as data: the same for a terminal, for --json and for the admin API. Nothing is computed here.
"""`Explanation`: stages in the order of the pipeline; the stage of the rules has a `RuleTrace` for each rule."""

from __future__ import annotations

from typing import Literal

import msgspec

# What a stage does to the request.
Effect = Literal[
    "passes",  # it goes on
    "changes",  # it goes on, differently
    "answers",  # it ends here
    "waits",  # what it does is known later: with the body, with the reply
]
State = Literal[
    "acts",  # holds, and does something
    "logs",  # holds, and is only told: action log, mode log
    "no match",
    "passed",  # a challenge that holds, and that this client has passed
    "skipped",  # an earlier skip left it out
    "not reached",  # an earlier rule ended the matter
    "disabled",
    "failed",  # it raised, and counts as not matching
    "waits",  # what it reads is not known: the body, the reply
]


class Named(msgspec.Struct):
    """A name and what belongs to it."""

    name: str
    value: str


class Node(msgspec.Struct, omit_defaults=True):
    """A test of an expression, and what it came to.

    Attributes:
        text: of this part of the expression.
        answer: None: it failed; a list: one answer for each element (`[*]`).
        values: what stands in it, by its text.
        parts: the tests that it is made of.
        join: what is made of them: and, or, xor, not, any, all.
        error: why it failed.
    """

    text: str
    answer: bool | list[bool] | None
    values: list[Named] = []
    parts: list[Node] = []
    join: str = ""
    error: str = ""


class RuleTrace(msgspec.Struct, omit_defaults=True):
    """One rule.

    Attributes:
        says: why it is in this state, or what it does, as a sentence.
        changes: what is different after it.
        expression: part by part; None where it was not asked.
        sample: the share of hits on which it acts, where that is not all.
    """

    id: str
    action: str
    state: State
    says: str
    mode: str = "act"
    description: str = ""
    sample: float = 1.0
    changes: list[Named] = []
    expression: Node | None = None


class Stage(msgspec.Struct, omit_defaults=True):
    """One stage of the pipeline.

    Attributes:
        says: what it decided and why, as a sentence.
        details: what it looked at or made.
        rules: of a stage that runs rules.
    """

    name: str
    effect: Effect
    says: str
    details: list[Named] = []
    rules: list[RuleTrace] = []


class Outcome(msgspec.Struct, omit_defaults=True):
    """What becomes of the request.

    Attributes:
        stage: which stage decided.
        status: of the edge's own answer; None: the upstream answers.
        upstream: that gets the request; None: none does.
        rule: the id of the rule that decided.
        hits: ids of the rules that were hit, in order.
    """

    says: str
    stage: str
    status: int | None = None
    upstream: str | None = None
    rule: str | None = None
    hits: list[str] = []


class Explanation(msgspec.Struct):
    """A request, what each stage did with it, and what became of it."""

    request: list[Named]
    stages: list[Stage]
    outcome: Outcome


def to_json(explanation: Explanation) -> bytes:
    """As JSON."""
    return msgspec.json.encode(explanation)
