# What went wrong with a question to the outside; apart, since who catches it need not load what asks.
"""`Unanswered`, `NotFetched`."""

from __future__ import annotations


class Unanswered(Exception):
    """No server of DNS answered, or one failed: nothing is known."""


class NotFetched(Exception):
    """Nothing came over HTTPS. With a sentence that says why."""
