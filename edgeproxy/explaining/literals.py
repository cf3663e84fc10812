# Which literals of an expression open doors: an explanation must not hand out what somebody wrote into a rule file.
"""`veiled` makes the tree that may be shown of a test; `veiled_value` that of a value in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgeproxy.rules.reads import credential, reads, secret_argument, whole
from edgeproxy.rules.syntax import (
    BitAnd,
    Call,
    Combine,
    Compare,
    Constant,
    Contains,
    Each,
    Field,
    In,
    Index,
    InList,
    Literal,
    Matches,
    Not,
    Quantifier,
    Test,
    Truth,
    Value,
    Wildcard,
)  # fmt: skip

HIDDEN: Final = b"<hidden>"  # not how long it is: a literal is known to all who may read the rule, and to nobody else
SIGNED: Final = "is_timed_hmac_valid_v0"  # its first argument is the key


def veiled(test: Test) -> Test:
    """A test to be shown, with its secret literals hidden."""
    match test:
        case Combine(op, parts):
            return Combine(op, tuple(veiled(part) for part in parts))
        case Not(inner):
            return Not(veiled(inner))
        case Quantifier(every, inner):
            return Quantifier(every, veiled(inner))
        case Constant():
            return test
    hide = secret(test)
    match test:
        case Truth(value):
            return Truth(veiled_value(value, hide))
        case Compare(_, left, right) | BitAnd(left, right):
            return replace(test, left=veiled_value(left, hide), right=veiled_value(right, hide))
    shown = replace(test, left=veiled_value(test.left, hide))
    if not hide:
        return shown
    match shown:
        case Contains():
            return replace(shown, needle=HIDDEN)
        case Matches():
            return replace(shown, pattern=HIDDEN.decode("ascii"))
        case Wildcard():
            return replace(shown, pattern=HIDDEN)
        case In(_, items) if any(isinstance(item, bytes) for item in items):
            return replace(shown, items=(HIDDEN,))
        case In() | InList():
            return shown


def secret(test: Test) -> bool:
    """Whether what stands in one test is compared with a credential.

    What is looked for in all headers at once is the mark of an attack; what they are to be equal to may be a key.
    """
    parts = reads(test)
    if any(secret_argument(part) or (credential(part) and not whole(part)) for part in parts):
        return True
    return isinstance(test, Compare | In) and any(map(credential, parts))


def veiled_value(value: Value, hide: bool) -> Value:
    """A value to be shown.

    Args:
        hide: the strings in it are secret.
    """
    match value:
        case Literal(content):
            return replace(value, value=HIDDEN) if hide and isinstance(content, bytes) else value
        case Field():
            return value
        case Index(base) | Each(base):
            return replace(value, base=veiled_value(base, hide))
        case Call(name, args):
            return replace(value, args=tuple(
                veiled_value(arg, hide or (name == SIGNED and not at)) for at, arg in enumerate(args)
            ))  # fmt: skip


def written(value: Value) -> bool:
    """Whether a string that is written down is in a value."""
    match value:
        case Literal(content):
            return isinstance(content, bytes)
        case Index(base) | Each(base):
            return written(base)
        case Call(_, args):
            return any(map(written, args))
    return False
