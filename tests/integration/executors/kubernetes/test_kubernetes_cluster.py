"""What Flo asks of a cluster's API, asked of the double: each verb, each refusal, and a watch that nothing escapes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from schemas.errors import Unavailable
from tests.k8s_double.orders import a_job, an_order
from tests.k8s_double.running import NAMESPACE, Double, running_double
from workers.executors.kubernetes.cluster import Cluster
from workers.executors.kubernetes.errors import ClusterAway, Rejected
from workers.executors.kubernetes.manifest import secret_manifest
from workers.executors.kubernetes.mirror import Mirror

pytestmark = pytest.mark.timeout(60)

TRUE, FOREVER = ["true"], ["sleep", "3600"]


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    with running_double(tmp_path) as running:
        yield running


@pytest.fixture
async def cluster(double: Double) -> AsyncIterator[Cluster]:
    opened = Cluster(str(double.kubeconfig), NAMESPACE)
    yield opened
    await opened.aclose()


class Seeing:
    """A mirror, and a way to wait until it shows something."""

    def __init__(self, cluster: Cluster) -> None:
        self._changed = asyncio.Event()
        self.mirror = Mirror(cluster, lambda name: self._changed.set())

    async def until(self, seen: Callable[[Mirror], bool]) -> None:
        while not seen(self.mirror):
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def seeing(cluster: Cluster) -> AsyncIterator[Seeing]:
    found = Seeing(cluster)
    following = asyncio.create_task(found.mirror.follow())
    try:
        yield found
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_creating_a_job_twice_is_one_job(cluster: Cluster, double: Double) -> None:
    first = await cluster.create_job(a_job(command=FOREVER))

    assert await cluster.create_job(a_job(command=FOREVER)) == first
    assert len(double.stored("Job")) == 1


async def test_a_job_is_followed_from_its_beginning_to_its_end(cluster: Cluster) -> None:
    job = a_job(command=TRUE)
    name = job["metadata"]["name"]
    async with seeing(cluster) as seen:
        await cluster.create_job(job)

        await seen.until(lambda mirror: name in mirror.jobs and mirror.jobs[name].succeeded)
        await seen.until(lambda mirror: name in mirror.pods and mirror.pods[name].exit_code == 0)

        assert (seen.mirror.jobs[name].run_id, seen.mirror.jobs[name].attempt) == ("run_1", 1)


async def test_a_job_begins_when_it_is_let(cluster: Cluster, double: Double) -> None:
    job = a_job(command=TRUE)
    job["spec"]["suspend"] = True
    name = job["metadata"]["name"]
    async with seeing(cluster) as seen:
        await cluster.create_job(job)
        await seen.until(lambda mirror: name in mirror.jobs)
        assert (seen.mirror.jobs[name].suspended, double.stored("Pod")) == (True, [])

        await cluster.start_job(name)
        await cluster.start_job(name)
        await seen.until(lambda mirror: mirror.jobs[name].succeeded)

    assert len(double.stored("Pod")) == 1


async def test_jobs_that_were_there_before_are_seen_page_by_page(cluster: Cluster) -> None:
    orders = [an_order(run_id=f"run_{number}") for number in range(7)]
    await asyncio.gather(*(cluster.create_job(a_job(order, command=FOREVER)) for order in orders))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.executors.kubernetes.cluster._PAGE", 3)
        listed, version = await cluster.list("jobs")

    assert len(listed) == 7
    assert int(version) > 0


@pytest.mark.parametrize("accident", ["drop-watches", "compact"])
async def test_nothing_escapes_a_watch_that_breaks_off(cluster: Cluster, double: Double, accident: str) -> None:
    first, second = a_job(an_order(run_id="run_a"), command=FOREVER), a_job(an_order(run_id="run_b"), command=TRUE)
    async with seeing(cluster) as seen:
        await cluster.create_job(first)
        await seen.until(lambda mirror: first["metadata"]["name"] in mirror.pods)

        double.misbehave(accident)
        await cluster.create_job(second)

        name = second["metadata"]["name"]
        await seen.until(lambda mirror: name in mirror.jobs and mirror.jobs[name].over)


async def test_a_watch_from_a_forgotten_version_begins_with_a_list(cluster: Cluster, double: Double) -> None:
    job = a_job(command=FOREVER)
    async with seeing(cluster) as seen:
        await cluster.create_job(job)
        await seen.until(lambda mirror: job["metadata"]["name"] in mirror.jobs)
        double.misbehave("fail", verb="watch", plural="jobs", status=500, times=2)
        double.misbehave("drop-watches")
        await cluster.delete_job(job["metadata"]["name"])
        double.misbehave("compact")

        await seen.until(lambda mirror: not mirror.jobs)

    assert seen.mirror.lists > 1


async def test_what_the_api_forbids_is_watched_once_it_is_granted(cluster: Cluster, double: Double) -> None:
    double.misbehave("fail", verb="get", plural="jobs", status=403, times=2)
    job = a_job(command=TRUE)
    async with seeing(cluster) as seen:
        await cluster.create_job(job)

        await seen.until(lambda mirror: job["metadata"]["name"] in mirror.jobs)


async def test_deleting_a_job_ends_its_processes_before_it_is_gone(cluster: Cluster, double: Double) -> None:
    job = a_job(command=FOREVER)
    name = job["metadata"]["name"]
    async with seeing(cluster) as seen:
        await cluster.create_job(job)
        await seen.until(lambda mirror: name in mirror.pods and mirror.pods[name].phase == "Running")
        assert double.state()["pids"]

        assert await cluster.delete_job(name)
        await seen.until(lambda mirror: name not in mirror.jobs)

    assert double.state()["pids"] == []
    assert not await cluster.delete_job(name)


async def test_a_secret_goes_with_its_job(cluster: Cluster, double: Double) -> None:
    job = a_job(command=FOREVER)
    uid = await cluster.create_job(job)
    secret = secret_manifest(job, "the token", owner=uid)

    await cluster.create_secret(secret)
    await cluster.create_secret(secret)
    assert len(double.stored("Secret")) == 1
    async with seeing(cluster) as seen:
        await seen.until(lambda mirror: bool(mirror.jobs))
        await cluster.delete_job(job["metadata"]["name"])
        await seen.until(lambda mirror: not mirror.jobs)
    assert double.stored("Secret") == []


async def test_the_end_of_a_log_can_be_read(cluster: Cluster, double: Double) -> None:
    job = a_job(command=["sh", "-c", "for n in $(seq 30); do echo line $n; done; exit 3"])
    name = job["metadata"]["name"]
    async with seeing(cluster) as seen:
        await cluster.create_job(job)
        await seen.until(lambda mirror: name in mirror.pods and mirror.pods[name].exit_code is not None)

        log = await cluster.end_of_log(seen.mirror.pods[name].name)

    assert log.splitlines() == [f"line {number}" for number in range(21, 31)]
    assert seen.mirror.pods[name].exit_code == 3


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_api_that_is_too_busy_may_be_asked_again(cluster: Cluster, double: Double, status: int) -> None:
    double.misbehave("fail", verb="post", plural="jobs", status=status, times=1)

    with pytest.raises(ClusterAway):
        await cluster.create_job(a_job(command=TRUE))
    assert await cluster.create_job(a_job(command=TRUE))


@pytest.mark.parametrize("status", [403, 422, 400])
async def test_what_an_api_refuses_is_not_asked_again(cluster: Cluster, double: Double, status: int) -> None:
    double.misbehave("fail", verb="post", plural="jobs", status=status, times=1)

    with pytest.raises(Rejected, match=str(status)):
        await cluster.create_job(a_job(command=TRUE))


async def test_an_api_that_is_not_there_is_away(cluster: Cluster, double: Double) -> None:
    double.process.send_signal(signal.SIGKILL)
    double.process.wait()

    with pytest.raises(ClusterAway, match="does not answer"):
        await cluster.list("jobs")


async def test_without_a_cluster_the_fix_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="KUBECONFIG is /nowhere"):
        await Cluster("/nowhere", NAMESPACE).list("jobs")
    with pytest.raises(Unavailable, match="KUBECONFIG is not set"):
        await Cluster(None, NAMESPACE).list("jobs")
