"""Circuits and kept results in SQL, where all workers see them. They are a help, never a need: while the database is
away, calls are let through, and nothing is known or kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from dispatch.store.session import Store, is_outage
from dispatch.store.shared import change_circuit, forget_results, keep_result, read_circuit, read_result
from schemas.flow import CircuitBreaker
from schemas.json import JSONObject, JSONValue, dumps
from workers.engine.circuit import Admitted, Circuit, Refused, Verdict, admit, report
from workers.engine.results import LARGEST, Question

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
#: Names no epoch: a report about it changes nothing.
_UNKNOWN = -1


class StoredBreakers:
    """Keeps circuits in SQL. A circuit that is closed and has no failures costs one read a call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, key: str, rule: CircuitBreaker) -> Admitted | Refused:
        now = datetime.now(UTC)

        def change(state: JSONObject | None) -> tuple[JSONObject, Admitted | Refused]:
            circuit, answer = admit(_circuit(state), rule, now.timestamp())
            return asdict(circuit), answer

        seen = await _or(self._read(key), None)
        if _circuit(seen).phase == "closed":
            return Admitted(_circuit(seen).epoch)
        work = partial(change_circuit, key=key, change=change, now=now)
        return await _or(self._store.transact(work), Admitted(_UNKNOWN))

    async def report(self, key: str, rule: CircuitBreaker, *, epoch: int, verdict: Verdict) -> None:
        now = datetime.now(UTC)

        def change(state: JSONObject | None) -> tuple[JSONObject, None]:
            return asdict(report(_circuit(state), rule, now.timestamp(), epoch=epoch, verdict=verdict)), None

        seen = await _or(self._read(key), None)
        if change(seen)[0] != asdict(_circuit(seen)):
            await _or(self._store.transact(partial(change_circuit, key=key, change=change, now=now)), None)

    async def _read(self, key: str) -> JSONObject | None:
        async with self._store.read() as connection:
            return await connection.run_sync(partial(read_circuit, key=key))


class StoredResults:
    """Keeps results in SQL, each for as long as its policy says."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, question: Question) -> Mapping[str, JSONValue] | None:
        async def read() -> JSONObject | None:
            async with self._store.read() as connection:
                return await connection.run_sync(partial(read_result, key=_key(question), now=datetime.now(UTC)))

        return await _or(read(), None)

    async def put(self, question: Question, outputs: Mapping[str, JSONValue], ttl: timedelta) -> None:
        if len(dumps(dict(outputs)).encode()) > LARGEST:
            return
        keep = partial(
            keep_result, key=_key(question), app=question.app, node_type=question.node_type, outputs=dict(outputs),
            expires_at=datetime.now(UTC) + ttl,
        )  # fmt: skip
        await _or(self._store.transact(keep), None)

    async def forget(self, *, app: str | None = None, node_type: str | None = None) -> int:
        if app is None:
            raise ValueError("results are forgotten app by app")
        work: Callable[[Connection], int] = partial(forget_results, app=app, node_type=node_type)
        return await self._store.transact(work)


def _circuit(state: JSONObject | None) -> Circuit:
    return Circuit(**state) if state else Circuit()  # type: ignore[arg-type]


def _key(question: Question) -> str:
    return f"{question.app}\n{question.node_type}\n{question.fingerprint}"


async def _or(asked: Awaitable[Answer], otherwise: Answer) -> Answer:
    try:
        return await asked
    except Exception as error:
        if not is_outage(error):
            raise
        log.warning("shared.away", error=(str(error) or repr(error)).splitlines()[0])
        return otherwise
