"""Lets runs in boxes share what the runs of their app share.

A box may be anyone's: it names no app, and gets its own's. What it writes there is that app's word, and nobody else's.
"""

from __future__ import annotations

from datetime import timedelta

from schemas.flow import CachePolicy, CircuitBreaker
from schemas.json import JSONValue
from workers.engine.circuit import Refused
from workers.engine.results import Question
from workers.engine.shared import Shared
from workers.runner import wire


async def answer(shared: Shared, asked: wire.Said, *, app: str) -> JSONValue:
    """Do what a box asks of its app's circuits and results; nonsense raises ValueError, LookupError or TypeError."""
    match asked["do"]:
        case "admit":
            admission = await shared.breakers.admit(_key(app, asked), CircuitBreaker.model_validate(asked["rule"]))
            if isinstance(admission, Refused):
                return {"retry_after_ms": wire.milliseconds(admission.retry_after)}
            return {"epoch": admission.epoch}
        case "report":
            if asked["verdict"] not in ("worked", "failed", "says nothing"):
                raise ValueError("not a verdict")
            rule = CircuitBreaker.model_validate(asked["rule"])
            await shared.breakers.report(_key(app, asked), rule, epoch=int(asked["epoch"]), verdict=asked["verdict"])
            return None
        case "get":
            known = await shared.results.get(_question(app, asked))
            return None if known is None else dict(known)
        case "put":
            ttl_ms = CachePolicy.model_validate({"ttl_ms": asked["ttl_ms"]}).ttl_ms
            if not isinstance(asked["outputs"], dict):
                raise TypeError("outputs are an object")
            await shared.results.put(_question(app, asked), asked["outputs"], timedelta(milliseconds=ttl_ms))
            return None
        case other:
            raise ValueError(f"{other!r} is nothing that can be asked of what is shared")


def _key(app: str, asked: wire.Said) -> str:
    return f"{app}\n{asked['target']}"


def _question(app: str, asked: wire.Said) -> Question:
    return Question(app=app, node_type=str(asked["node_type"])[:200], fingerprint=str(asked["fingerprint"])[:64])
