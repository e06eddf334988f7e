"""Circuits and kept results, with one suite: in the memory of one worker, in SQL, and asked for from inside a box."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from dispatch.store.session import Store
from schemas.flow import CircuitBreaker
from schemas.json import JSONObject
from tests import servers
from workers.engine.circuit import Admitted, Refused
from workers.engine.results import LARGEST, Question
from workers.engine.shared import Shared
from workers.executors.boxed import sharing
from workers.runner.asks import Asks
from workers.runner.sharing import asked_shared
from workers.shared_in_sql import StoredBreakers, StoredResults

RULE = CircuitBreaker(failure_threshold=2, open_ms=3_600_000)
KEY = "shop\napi.example.com"
TTL = timedelta(hours=1)


class Desk:
    """Stands for the channel between a box and its worker: what is asked crosses it as JSON."""

    def __init__(self, shared: Shared, app: str) -> None:
        self._shared = shared
        self._app = app

    async def ask(self, run: int, what: str, order: JSONObject) -> Any:
        assert what == "shared"
        said = await sharing.answer(self._shared, json.loads(json.dumps(order)), app=self._app)
        return json.loads(json.dumps(said))


def boxed(shared: Shared, *, app: str = "shop") -> Shared:
    return asked_shared(cast(Asks, Desk(shared, app)), 1, bulkheads=shared.bulkheads)


@dataclass(frozen=True)
class Workers:
    """Two who share."""

    one: Shared
    other: Shared


def in_sql(store: Store) -> Shared:
    return Shared(breakers=StoredBreakers(store), results=StoredResults(store))


@pytest.fixture
async def sqlite(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Store]:
    shutil.copy(sqlite_template, tmp_path / "flo.db")
    store = await Store.open(f"sqlite:///{tmp_path / 'flo.db'}")
    yield store
    await store.aclose()


@pytest.fixture
async def postgres(postgres_server: str, postgres_template: str) -> AsyncIterator[Store]:
    with servers.new_database(postgres_server, template=postgres_template) as url:
        store = await Store.open(url)
        yield store
        await store.aclose()


@pytest.fixture(params=["memory", "sqlite", "postgres", "boxes"])
def workers(request: pytest.FixtureRequest) -> Workers:
    if request.param == "memory":
        shared = Shared()
        return Workers(shared, shared)
    if request.param == "boxes":
        shared = Shared()
        return Workers(boxed(shared), boxed(shared))
    store: Store = request.getfixturevalue(request.param)
    return Workers(in_sql(store), in_sql(store))


def question(**more: str) -> Question:
    return Question(**{"app": "shop", "node_type": "http.request", "fingerprint": "f" * 64, **more})


async def fail(shared: Shared, times: int = 1) -> None:
    for _ in range(times):
        admission = await shared.breakers.admit(KEY, RULE)
        assert isinstance(admission, Admitted)
        await shared.breakers.report(KEY, RULE, epoch=admission.epoch, verdict="failed")


async def test_what_fails_for_one_opens_the_circuit_for_the_other(workers: Workers) -> None:
    await fail(workers.one)
    await fail(workers.other)

    assert isinstance(await workers.one.breakers.admit(KEY, RULE), Refused)
    assert isinstance(await workers.other.breakers.admit(KEY, RULE), Refused)


async def test_a_call_that_worked_begins_the_count_anew(workers: Workers) -> None:
    await fail(workers.one)
    admission = await workers.other.breakers.admit(KEY, RULE)
    assert isinstance(admission, Admitted)
    await workers.other.breakers.report(KEY, RULE, epoch=admission.epoch, verdict="worked")
    await fail(workers.one)

    assert isinstance(await workers.one.breakers.admit(KEY, RULE), Admitted)


async def test_failures_at_the_same_moment_are_all_counted(workers: Workers) -> None:
    patient = RULE.model_copy(update={"failure_threshold": 10})
    admissions = await asyncio.gather(*(workers.one.breakers.admit(KEY, patient) for _ in range(10)))
    epochs = [one.epoch for one in admissions if isinstance(one, Admitted)]

    await asyncio.gather(
        *(workers.other.breakers.report(KEY, patient, epoch=epoch, verdict="failed") for epoch in epochs)
    )

    assert isinstance(await workers.one.breakers.admit(KEY, patient), Refused)


async def test_after_its_rest_one_call_of_all_workers_tries_the_target(workers: Workers) -> None:
    short = RULE.model_copy(update={"open_ms": 1})
    await fail(workers.one, times=2)
    await asyncio.sleep(0.002)  # the rule's own time: nothing else can end it

    first = await workers.one.breakers.admit(KEY, short)
    second = await workers.other.breakers.admit(KEY, RULE)

    assert isinstance(first, Admitted)
    assert isinstance(second, Refused)


async def test_a_result_that_one_keeps_is_given_to_the_other(workers: Workers) -> None:
    await workers.one.results.put(question(), {"status": 200, "n": 2**70}, TTL)

    assert await workers.other.results.get(question()) == {"status": 200, "n": 2**70}


async def test_a_stale_result_is_not_given(workers: Workers) -> None:
    await workers.one.results.put(question(), {"status": 200}, timedelta(milliseconds=1))
    await asyncio.sleep(0.002)  # the policy's own time

    assert await workers.other.results.get(question()) is None


async def test_another_question_has_no_answer(workers: Workers) -> None:
    await workers.one.results.put(question(), {"status": 200}, TTL)

    assert await workers.one.results.get(question(node_type="code.javascript")) is None
    assert await workers.one.results.get(question(fingerprint="0" * 64)) is None


async def test_what_is_too_big_is_not_kept(workers: Workers) -> None:
    await workers.one.results.put(question(), {"body": "x" * LARGEST}, TTL)

    assert await workers.one.results.get(question()) is None


async def test_a_box_sees_and_touches_its_own_app_only() -> None:
    shared = Shared()
    await shared.results.put(question(), {"secret": 1}, TTL)
    thief = boxed(shared, app="thief")

    await fail(thief, times=2)  # with a key that names the other app

    assert await thief.results.get(question()) is None
    assert isinstance(await shared.breakers.admit(KEY, RULE), Admitted)


@pytest.mark.parametrize(
    "nonsense",
    [{"do": "forget"}, {"do": "admit"}, {"do": "admit", "target": "x", "rule": {"open_ms": -1}},
     {"do": "report", "target": "x", "rule": {}, "epoch": 1, "verdict": "maybe"},
     {"do": "put", "node_type": "x", "fingerprint": "f", "outputs": [], "ttl_ms": 1}],
)  # fmt: skip
async def test_nonsense_from_a_box_is_refused(nonsense: JSONObject) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        await sharing.answer(Shared(), nonsense, app="shop")


async def test_while_the_database_is_away_calls_are_let_through() -> None:
    shared = in_sql(cast(Store, Away()))

    await fail(shared, times=3)

    assert isinstance(await shared.breakers.admit(KEY, RULE), Admitted)
    assert await shared.results.get(question()) is None
    await shared.results.put(question(), {"n": 1}, TTL)


class Away:
    """A store whose server does not answer."""

    async def transact(self, work: object) -> None:
        raise ConnectionError("no route to host")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        raise ConnectionError("no route to host")
        yield
