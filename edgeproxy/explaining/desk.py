# Explanations for the admin address: JSON in, JSON out, by the configuration that is in use. It knows no loop and no HTTP.
"""`Desk`: `use` is called where messages arrive, `answer` in a thread; only the first answers of a generation compile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.config.model import Config
from edgeproxy.explaining.question import Question, Unclear

if TYPE_CHECKING:
    from edgeproxy.explaining.counted import Counted
    from edgeproxy.explaining.paper import PaperSnapshot


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What may be asked: either `curl`, or `url` and what belongs to it."""

    curl: str | None = None
    url: str | None = None
    method: str | None = None
    headers: dict[str, str | list[str]] | list[tuple[str, str]] = []
    body: str | None = None
    client: str | None = None
    ja4: str = ""
    http: str | float | None = None
    status: int | None = None
    response_headers: dict[str, str | list[str]] | list[tuple[str, str]] | None = None


_decode = msgspec.json.Decoder(_Asked).decode


class Desk:
    """See the module."""

    __slots__ = ("_config", "_paper")

    def __init__(self, config: Config) -> None:
        # A configuration, or one as JSON that nobody has asked about yet.
        self._config: Config | bytes = config
        self._paper: tuple[Config | bytes, PaperSnapshot] | None = None

    def use(self, config: bytes) -> None:
        """Another configuration (JSON) is in use."""
        self._config = config
        self._paper = None

    def answer(self, content: bytes, until: float = math.inf) -> bytes:
        """The explanation, as JSON.

        Args:
            content: JSON with the keys of `_Asked`.
            until: monotonic seconds when the answer comes too late.

        Raises: Unclear; Busy when it is too late.
        """
        # Here and not above: who is never asked does not pay for loading it.
        from edgeproxy.explaining.answer import to_json
        from edgeproxy.explaining.course import explain

        question = _question(content)
        return to_json(explain(self._snapshot(), question, until=until))

    def counted(self, content: bytes, until: float = math.inf) -> Counted:
        """Which limits a request, or a key of the edge, is counted under.

        Args, Raises: as `answer`; the content is that of /api/limits (counted.py).
        """
        from edgeproxy.explaining.counted import Asked, decode, of_key, of_request

        asked: Asked = decode(content)
        snapshot = self._snapshot()
        if not bytes(asked.request):
            return of_key(snapshot, asked)
        return of_request(snapshot, asked, _question(bytes(asked.request)), until)

    def _snapshot(self) -> PaperSnapshot:
        from edgeproxy.explaining.paper import PaperSnapshot

        paper, config = self._paper, self._config
        if paper is None or paper[0] is not config:
            made = config if isinstance(config, Config) else Config.model_validate_json(config)
            paper = self._paper = (config, PaperSnapshot(made))
        return paper[1]


def _question(content: bytes) -> Question:
    from edgeproxy.explaining.curl import no_files, read_curl
    from edgeproxy.explaining.shell import words

    try:
        asked = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unclear(f"the request is not understood: {error}") from None
    if (asked.curl is None) == (asked.url is None):
        raise Unclear("give 'url' or 'curl', and only one of them")
    if asked.curl is not None:
        if asked.method or asked.headers or asked.body is not None or asked.http is not None:
            raise Unclear("'method', 'headers', 'body' and 'http' belong to 'url': the command says these itself")
        question = read_curl(words(asked.curl), no_files)
    else:
        assert asked.url is not None
        body = asked.body.encode("utf-8", "surrogatepass") if asked.body is not None else None
        question = Question(asked.url, asked.method, _pairs(asked.headers), body)
        if asked.http is not None:
            question.http = f"{asked.http:g}" if isinstance(asked.http, float | int) else asked.http
    if asked.client is not None:
        question.client = asked.client
    question.ja4 = asked.ja4
    question.status = asked.status
    if asked.response_headers is not None:
        question.reply_headers = _pairs(asked.response_headers)
        question.status = question.status or 200
    if question.status is not None and not 200 <= question.status <= 599:
        raise Unclear(f"{question.status} is not the status of a reply: 200 to 599")
    return question


def _pairs(given: dict[str, str | list[str]] | list[tuple[str, str]]) -> list[tuple[str, str]]:
    if isinstance(given, list):
        return given
    return [(name, value) for name, values in given.items() for value in ([values] if isinstance(values, str) else values)]
