"""What the runs of an app share, for an engine in a box: it asks its worker (`executors/boxed/sharing.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from schemas.flow import CircuitBreaker
from schemas.json import JSONObject, JSONValue
from workers.engine.bulkhead import Bulkheads
from workers.engine.circuit import Admitted, Refused, Verdict
from workers.engine.results import Question
from workers.engine.shared import Shared
from workers.runner.asks import Asks


def asked_shared(asks: Asks, run: int, *, bulkheads: Bulkheads) -> Shared:
    """Give one run what its app's runs share; places are counted in this box."""
    return Shared(breakers=AskedBreakers(asks, run), bulkheads=bulkheads, results=AskedResults(asks, run))


class AskedBreakers:
    """Asks the worker about circuits. The app in a key is left out: the worker knows whose box this is."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def admit(self, key: str, rule: CircuitBreaker) -> Admitted | Refused:
        answer = await self._ask("admit", key, rule)
        if "epoch" in answer:
            return Admitted(answer["epoch"])
        return Refused(timedelta(milliseconds=answer["retry_after_ms"]))

    async def report(self, key: str, rule: CircuitBreaker, *, epoch: int, verdict: Verdict) -> None:
        await self._ask("report", key, rule, epoch=epoch, verdict=verdict)

    async def _ask(self, do: str, key: str, rule: CircuitBreaker, **more: JSONValue) -> Any:
        target = key.partition("\n")[2]
        order: JSONObject = {"do": do, "target": target, "rule": rule.model_dump(mode="json"), **more}
        return await self._asks.ask(self._run, "shared", order)


class AskedResults:
    """Asks the worker for results, and has it keep them."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def get(self, question: Question) -> Mapping[str, JSONValue] | None:
        answer: JSONObject | None = await self._asks.ask(self._run, "shared", {"do": "get", **_words(question)})
        return answer

    async def put(self, question: Question, outputs: Mapping[str, JSONValue], ttl: timedelta) -> None:
        ttl_ms = ttl // timedelta(milliseconds=1)
        order: JSONObject = {"do": "put", **_words(question), "outputs": dict(outputs), "ttl_ms": ttl_ms}
        await self._asks.ask(self._run, "shared", order)

    async def forget(self, *, app: str | None = None, node_type: str | None = None) -> int:
        raise NotImplementedError("only operators forget results")


def _words(question: Question) -> JSONObject:
    return {"node_type": question.node_type, "fingerprint": question.fingerprint}
