"""Reads what the server answered: JSON, or a problem document (RFC 9457) that becomes an error."""

from __future__ import annotations

import json
from typing import Any

from flo.errors import Answered, Problem


def read(status: int, body: bytes, *, as_text: bool = False) -> Any:
    """Give the answer's JSON (or its text), None where it has no body; raise Answered when the server said no."""
    if status >= 400:
        raise refusal(status, body)
    if as_text:
        return body.decode()
    return json.loads(body) if body else None


def refusal(status: int, body: bytes) -> Answered:
    """Make the error that a refusal stands for; a proxy's page in place of a problem document is quoted briefly."""
    try:
        document = json.loads(body)
        detail = str(document.get("detail") or document.get("title") or f"the server answered {status}")
        errors = document.get("errors") or []
        problems = [
            Problem(path=str(e.get("path", "")), message=str(e["message"]), fix=str(e.get("fix") or "")) for e in errors
        ]
    except (ValueError, AttributeError, KeyError, TypeError):
        return Answered(status, f"the server answered {status}: {body[:200].decode(errors='replace').strip()}")
    # The detail of a document with many mistakes lists them again after its first line.
    return Answered(status, detail.partition("\n")[0] if problems else detail, problems)
