# How the edge's own failures look to everybody else: a small HTML page or JSON, as the client accepts.
"""Error pages."""

from __future__ import annotations

import html
import http

import msgspec

from edgeproxy.faults import Fault


def wants_html(accept: bytes | None) -> bool:
    """Whether a client prefers a page for people: browsers name text/html, API clients do not."""
    return accept is not None and b"text/html" in accept.lower()


def error_page(fault: Fault, ray: str, accept: bytes | None) -> tuple[bytes, bytes]:
    """Content type and body of an error.

    Args:
        accept: value of the Accept field, None when absent or not known.
    """
    if not wants_html(accept):
        error = {"status": fault.status, "code": fault.reason, "message": fault.message, "ray": ray}
        return b"application/json", msgspec.json.encode({"error": error})
    title = f"{fault.status} {_phrase(fault.status)}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;"
        f"padding:0 1rem}}small{{color:#595959}}</style><h1>{title}</h1><p>{html.escape(fault.message)}</p>"
        f"<p><small>Ray {html.escape(ray)}</small></p></html>\n"
    )
    return b"text/html; charset=utf-8", page.encode("utf-8")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
