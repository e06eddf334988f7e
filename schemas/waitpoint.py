"""Waitpoints: what whoever resumes a run must know, and what is kept of that.

A token opens one waitpoint, once. Flo looks it up by its SHA-256, so that nobody learns one from the table.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from schemas.json import JSONObject
from schemas.outcome import WaitKind

#: 256 bits, as `token_urlsafe` writes them.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_WAITPOINT = re.compile(r"[0-9a-f]{64}")

#: Where waitpoints are answered, under the server's own address.
PATH = "/api/v1/waitpoints/"


def new_token() -> str:
    return secrets.token_urlsafe(32)


def is_token(text: object) -> bool:
    """Tell whether a text could be one of our tokens: nobody may choose one that can be guessed."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def waitpoint_of(token: str) -> str:
    """Give what is kept of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def child_waitpoint(run_id: str, node_id: str, round_: int, failures: int = 0) -> str:
    """Name the waitpoint of a child run: the same for every attempt at its caller, so that none starts a second one.

    A node that is retried, and a flow that starts over, start another.
    """
    return hashlib.sha256(f"child\n{run_id}\n{node_id}\n{round_}\n{failures}".encode()).hexdigest()


def is_waitpoint(text: object) -> bool:
    return isinstance(text, str) and _WAITPOINT.fullmatch(text) is not None


def opening(waitpoint: str, kind: WaitKind) -> JSONObject:
    """Word what a `data` event says that opens a waitpoint: its row is written with the event."""
    return {"id": waitpoint, "kind": str(kind)}


def opened_by(data: JSONObject) -> tuple[str, WaitKind] | None:
    """Read the waitpoint that an event opens, if it does. Events may be anyone's word: what is none opens nothing."""
    match data.get("waitpoint"):
        case {"id": str() as waitpoint, "kind": "webhook" | "approval" as kind} if is_waitpoint(waitpoint):
            return waitpoint, WaitKind(kind)
    return None
