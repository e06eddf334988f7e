"""What becomes of runs whose Jobs can't tell their end: a real API, a real runner, a cluster where things go wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from away_place import AwayApi, Followed, serving_api
from executor_places import Limits, Place, javascript
from kubernetes_place import with_resources
from sqlalchemy import update

from dispatch.leases import leaders
from dispatch.store.runs import runs
from schemas.app import AppLimits
from schemas.errors import Unavailable
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, Succeeded
from schemas.pod import PodAllowance
from schemas.run import EventType, Happening
from tests.k8s_double.orders import RESOURCES
from tests.k8s_double.running import Double, running_double
from workers.engine.sink import MemorySink
from workers.executors.base import RunOrder
from workers.executors.kubernetes import executor, keeper, manifest, verdict
from workers.executors.kubernetes.executor import KubernetesExecutor
from workers.executors.kubernetes.naming import job_name
from workers.executors.kubernetes.opening import open_kubernetes

pytestmark = pytest.mark.timeout(90)

LOG = {"id": "it", "node_type": "debug.log", "config": {"message": "m"}}
TALK = javascript("export default () => { console.log('a word'); return new Promise(() => {}) }", timeout_ms=60_000)


class _Waiting(MemorySink):
    def __init__(self, type_: EventType) -> None:
        super().__init__()
        self.happened = asyncio.Event()
        self._type = type_

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        if happening.type is self._type:
            self.happened.set()


@dataclass
class Cluster:
    """An executor, its cluster, and the API that its Jobs call back."""

    double: Double
    api: AwayApi
    limits: Limits
    executor: KubernetesExecutor
    place: Place

    def order(self, *nodes: dict[str, Any], **given: Any) -> RunOrder:
        return self.place.order(*nodes or (LOG,), **given)

    async def until(self, seen: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until the cluster has what a test wants to see."""
        while not seen(await asyncio.to_thread(lambda: self.double.state()["stored"])):  # noqa: ASYNC110  another process
            await asyncio.sleep(0.05)

    async def until_running(self, order: RunOrder) -> str:
        """Wait until an order's pod runs, and give its Job's name."""
        name = job_name(with_resources(order))
        await self.until(lambda stored: any(_is_running(each, name) for each in stored))
        return name

    async def start(self, *nodes: dict[str, Any], until: EventType) -> tuple[asyncio.Task[Outcome], str]:
        """Start a run, wait for something to happen in it, and give it with its Job's name."""
        order, events = self.order(*nodes), _Waiting(until)
        run = asyncio.create_task(self.place.run(order, events))
        await asyncio.wait([run, asyncio.create_task(events.happened.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert not run.done(), run
        return run, job_name(with_resources(order))

    async def until_empty(self) -> None:
        await self.until(lambda stored: not stored)


def _is_running(stored: dict[str, Any], job: str) -> bool:
    of = stored["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name")
    return stored["kind"] == "Pod" and of == job and stored["status"].get("phase") == "Running"


def _template(home: Path, command: list[str]) -> str:
    """Write a pod template whose runner is another program."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "pod.yaml"
    path.write_text(json.dumps({"spec": {"containers": [{"name": "runner", "command": command}]}}))
    return str(path)


@asynccontextmanager
async def opened(
    home: Path, double: Double, *, command: list[str] | None = None, **variables: str
) -> AsyncIterator[Cluster]:
    """Open an executor; its containers execute `command` instead of the runner, if it is given."""
    known = {**double.variables, "K8S_START_SECONDS": "1", "K8S_KEEP_SECONDS": "600", **variables}
    if command is not None:
        known["K8S_POD_TEMPLATE"] = _template(home, command)
    limits = Limits()
    async with serving_api(home, limits, **known) as api:
        made = open_kubernetes(api.settings, api.store, limits=limits, book=api.book, owner="wrk_test")
        made.start()
        try:
            yield Cluster(double, api, limits, made, Place(Followed(made, api, prepared=with_resources), limits))
        finally:
            await made.aclose()


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    with running_double(tmp_path / "cluster", "--cpu", "4", "--memory", "64Gi") as running:
        yield running


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for longer than a test wants to."""
    monkeypatch.setattr(verdict, "LAST_WORD", timedelta(seconds=1))
    monkeypatch.setattr(manifest, "_GRACE", 0)
    monkeypatch.setattr(manifest, "_STOP_SECONDS", 1)
    monkeypatch.setattr(keeper, "_FAREWELL", 0.5)
    monkeypatch.setattr(executor, "_PATIENCE", timedelta(seconds=2))


ENDS = {
    "an exit code": (["sh", "-c", "echo no module named flo; exit 5"], {}, ErrorKind.KILLED, "no module named flo"),
    "a missing program": (["no-such-program"], {}, ErrorKind.INTERNAL, "could not be started"),
    "too much memory": (
        ["python", "-c", "x = b'x' * 400_000_000; import time; time.sleep(60)"],
        {"backend_config": {"resources": {"limits": {"cpu": "1", "memory": "128Mi"}}}},
        ErrorKind.MEMORY_EXCEEDED,
        "more than its memory of 128Mi",
    ),
    "too much time": (
        ["sleep", "60"],
        {"settings": {"max_execution_time_ms": 1000}},
        ErrorKind.TIMED_OUT,
        "max_execution_time_ms",
    ),
    "no node": (
        ["true"],
        {"backend_config": {"resources": {"limits": {"cpu": "64", "memory": "1Gi"}}}},
        ErrorKind.UPSTREAM,
        "Insufficient cpu",
    ),
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_that_no_call_back_tells_is_told_with_its_reason(tmp_path: Path, double: Double, end: str) -> None:
    command, given, kind, said = ENDS[end]
    async with opened(tmp_path, double, command=command) as cluster:
        error = await cluster.place.error(cluster.order(**given))

    assert error.kind is kind
    assert said in error.message


@pytest.mark.parametrize("image", ["not-there:1", "No Image!"])
async def test_an_image_that_can_not_be_had_is_the_end_and_its_job_is_deleted(
    tmp_path: Path, double: Double, image: str
) -> None:
    async with opened(tmp_path, double, K8S_EXECUTOR_IMAGE=image) as cluster:
        error = await cluster.place.error(cluster.order())
        await cluster.until_empty()

    assert "K8S_EXECUTOR_IMAGE" in error.message


async def test_a_job_that_ends_well_without_a_word_is_tried_again(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, command=["true"]) as cluster:
        outcome = await cluster.place.run(cluster.order())

    assert isinstance(outcome, Retry)
    assert "never said how" in outcome.reason


ACCIDENTS = {
    "evict": ({"message": "The node was low on resource: memory."}, "evicted"),
    "lose-node": ({}, "node"),
    "kill": ({"signal": int(signal.SIGKILL)}, "somebody ended"),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
async def test_a_run_that_lost_its_place_is_tried_again(tmp_path: Path, double: Double, accident: str) -> None:
    given, said = ACCIDENTS[accident]
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        order = cluster.order(TALK)
        run = asyncio.create_task(cluster.place.run(order))
        double.misbehave(accident, job=await cluster.until_running(order), **given)
        outcome = await run

    assert isinstance(outcome, Retry)
    assert said in outcome.reason


async def test_a_job_that_somebody_deletes_is_tried_again(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, command=["sleep", "60"], K8S_START_SECONDS="60") as cluster:
        order = cluster.order()
        run = asyncio.create_task(cluster.place.run(order))
        await cluster.executor._cluster.delete_job(await cluster.until_running(order))
        outcome = await run

    assert isinstance(outcome, Retry)
    assert "somebody deleted" in outcome.reason


async def test_a_cancelled_run_ends_its_own_pod(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        run, _ = await cluster.start(TALK, until=EventType.LOG)

        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        await cluster.until(lambda stored: not double.state()["pids"])


async def test_a_cancelled_run_that_does_not_listen_is_over_when_nothing_of_its_job_is_left(
    tmp_path: Path, double: Double
) -> None:
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        run, name = await cluster.start(TALK, until=EventType.LOG)
        double.misbehave("kill", job=name, signal=int(signal.SIGSTOP))

        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        assert (double.state()["stored"], double.state()["pids"]) == ([], [])


async def test_a_cancelled_run_that_nobody_has_begun_with_leaves_no_job(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, command=["sleep", "60"], K8S_START_SECONDS="60") as cluster:
        order = cluster.order()
        run = asyncio.create_task(cluster.place.run(order))
        await cluster.until_running(order)

        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        await cluster.until_empty()


async def test_what_the_api_knows_is_nowhere_in_the_cluster(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        order = cluster.order(LOG, payload={"card": "4111 1111"})
        assert isinstance(await cluster.place.run(order), Succeeded)

        stored = double.state()["stored"]

    assert {each["kind"] for each in stored} == {"Job", "Pod", "Secret"}
    assert "4111" not in json.dumps(stored)


async def test_a_cluster_that_takes_no_job_says_why(tmp_path: Path, double: Double) -> None:
    double.misbehave("fail", verb="post", plural="jobs", status=403, times=1)
    async with opened(tmp_path, double) as cluster:
        outcome = await cluster.place.run(cluster.order())

    assert isinstance(outcome, Failed)
    assert "403" in outcome.error.message
    assert "k8s/" in outcome.error.message


async def test_an_api_that_is_busy_for_a_moment_is_waited_for(tmp_path: Path, double: Double) -> None:
    double.misbehave("fail", verb="post", plural="jobs", status=429, times=1)
    double.misbehave("fail", verb="post", plural="secrets", status=503, times=1)
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        assert isinstance(await cluster.place.run(cluster.order()), Succeeded)


async def test_an_api_that_stays_busy_puts_the_run_off_and_leaves_no_job(tmp_path: Path, double: Double) -> None:
    double.misbehave("fail", verb="post", plural="secrets", status=503, times=50)
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        with pytest.raises(Unavailable, match="could not be created"):
            await cluster.place.run(cluster.order())

        assert [each for each in double.state()["stored"] if each["kind"] == "Job"] == []


async def test_a_run_without_resources_is_refused_with_the_fix(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double) as cluster:
        cluster.place.executor = cluster.executor  # type: ignore[assignment]
        outcome = await cluster.place.run(cluster.order())

    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, double.state()["stored"]) == (ErrorKind.INVALID_INPUT, [])
    assert "settings" in outcome.error.message


async def test_a_run_gets_only_what_its_operator_allows(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, K8S_START_SECONDS="60") as cluster:
        wish = {"resources": RESOURCES, "service_account": "builder"}
        refused = await cluster.place.run(cluster.order(backend_config=wish))
        cluster.limits["acme"] = AppLimits(kubernetes=PodAllowance(service_accounts=("builder",)))
        granted = await cluster.place.run(cluster.order(backend_config=wish))

    assert isinstance(refused, Failed)
    assert refused.error.kind is ErrorKind.FORBIDDEN
    assert isinstance(granted, Succeeded)
    assert {job["spec"]["template"]["spec"]["serviceAccountName"] for job in double.stored("Job")} == {"builder"}


async def test_a_job_whose_attempt_has_its_run_no_more_is_deleted(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, command=["sleep", "60"], K8S_START_SECONDS="60") as cluster:
        order = cluster.order()
        run = asyncio.create_task(cluster.place.run(order))
        await cluster.until_running(order)

        async with cluster.api.store.write() as connection:
            await connection.execute(update(runs).where(runs.c.id == order.run_id).values(attempt=2))

        await cluster.until_empty()
        async with cluster.api.store.write() as connection:
            await connection.execute(update(runs).where(runs.c.id == order.run_id).values(attempt=1))
        await cluster.api.book.settle(order.run_id, 1, Retry(after=timedelta(0), reason="the test is over"))
        await run


def _asked_of(cluster: Cluster) -> asyncio.Queue[Sequence[str]]:
    """Listen to which runs a keeper asks after, as it knows nothing of their Jobs."""
    assert cluster.executor._turn is not None
    kept: keeper.Keeper = cluster.executor._turn._work.__self__  # type: ignore[attr-defined]
    asked: asyncio.Queue[Sequence[str]] = asyncio.Queue()
    known = kept._known

    async def recorded(run_ids: Sequence[str]) -> set[str]:
        asked.put_nowait(run_ids)
        return await known(run_ids)

    kept._known = recorded
    return asked


async def test_a_job_of_another_flo_is_left_alone(tmp_path: Path, double: Double) -> None:
    async with (
        opened(tmp_path / "one", double, command=["sleep", "60"], K8S_START_SECONDS="60") as one,
        opened(tmp_path / "other", double, K8S_START_SECONDS="60") as other,
    ):
        theirs = one.order()
        run = asyncio.create_task(one.place.run(theirs))
        name = await one.until_running(theirs)

        asked = _asked_of(other)
        for _ in range(2):  # the second time, the first has been decided
            assert theirs.run_id in await asked.get()

        (job,) = [each for each in double.stored("Job") if each["metadata"]["name"] == name]
        assert "deletionTimestamp" not in job["metadata"]
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_a_run_whose_worker_died_before_its_job_was_created_is_tried_again(
    tmp_path: Path, double: Double
) -> None:
    async with opened(tmp_path, double) as cluster:

        async def dies(*_: object) -> None:
            """As a worker that is killed right after it has lent the attempt: nothing is undone."""

        cluster.executor._create = dies  # type: ignore[method-assign]
        outcome = await cluster.place.run(cluster.order())

    assert isinstance(outcome, Retry)
    assert "never created" in outcome.reason


async def test_a_run_whose_worker_died_before_its_job_could_begin_is_tried_again(
    tmp_path: Path, double: Double
) -> None:
    async with opened(tmp_path, double) as cluster:

        async def dies(*_: object) -> None:
            """As a worker that is killed right after it has created the Job."""

        cluster.executor._cluster.create_secret = dies  # type: ignore[method-assign]
        cluster.executor._cluster.start_job = dies  # type: ignore[method-assign]
        outcome = await cluster.place.run(cluster.order())

        assert isinstance(outcome, Retry)
        assert "never let begin" in outcome.reason
        assert double.state()["stored"] == []


async def test_another_worker_settles_what_the_one_that_died_has_lent(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, command=["sh", "-c", "sleep 2; exit 5"], K8S_START_SECONDS="60") as cluster:
        order = cluster.order()
        run = asyncio.create_task(cluster.place.run(order))
        await cluster.until_running(order)
        turn = cluster.executor._turn
        assert turn is not None
        await turn.aclose()
        async with cluster.api.store.write() as connection:
            await connection.execute(update(leaders).values(holder="wrk_dead"))

        api = cluster.api
        heir = open_kubernetes(api.settings, api.store, limits=cluster.limits, book=api.book, owner="wrk_heir")
        heir.start()
        outcome = await run
        await heir.aclose()

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.KILLED


async def test_the_watch_survives_whatever_the_api_does(tmp_path: Path, double: Double) -> None:
    async with opened(tmp_path, double, command=["sh", "-c", "sleep 2; exit 5"], K8S_START_SECONDS="60") as cluster:
        order = cluster.order()
        run = asyncio.create_task(cluster.place.run(order))
        await cluster.until_running(order)
        for verb in ("watch", "get"):
            double.misbehave("fail", verb=verb, plural="jobs", status=500, times=2)
        double.misbehave("compact")
        double.misbehave("drop-watches")

        outcome = await run

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.KILLED
