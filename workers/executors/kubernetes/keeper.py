"""Looks after all that is lent to the cluster: settles what can't tell its own end, and deletes what nobody wants.

It compares three lists, and nothing else: what SQL has lent, the Jobs and the pods. So it needs no memory of its own: a
keeper in another worker goes on where this one stopped, whatever became of the workers that have made the Jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from dispatch.store.loans import Lent
from dispatch.store.session import is_outage
from schemas.errors import Unavailable
from schemas.outcome import Cancelled
from schemas.settings import ExecutorName
from workers.executors.kubernetes.cluster import Cluster
from workers.executors.kubernetes.errors import ClusterTrouble
from workers.executors.kubernetes.facts import JobFacts, PodFacts
from workers.executors.kubernetes.mirror import Mirror
from workers.executors.kubernetes.verdict import Verdict, judge, stage
from workers.executors.loan import LoanBook

log = structlog.get_logger()

#: Seconds between two looks into SQL; sooner when a Job fails or is gone, but not more often than that.
_LOOK_EVERY, _LOOK_SOON = 2.0, 0.25
#: Seconds for which a Job may run although its attempt is over: it has just told its end.
_FAREWELL = 10.0

#: Tells which of these runs are in this SQL: a cluster may serve more than one Flo.
KnownRuns = Callable[[Sequence[str]], Awaitable[set[str]]]


@dataclass(slots=True)
class _Sight:
    """How long something has looked as it does, by the monotonic clock."""

    stage: str
    since: float
    #: The Job has been there.
    was_there: bool = False
    #: How the attempt ended, once nothing of it can begin any more.
    verdict: Verdict | None = None


class Keeper:
    """Keeps what is lent to one cluster."""

    def __init__(self, cluster: Cluster, book: LoanBook, known: KnownRuns, *, starts_within: timedelta) -> None:
        self._cluster = cluster
        self._book = book
        self._known = known
        self._starts_within = starts_within
        self._mirror = Mirror(cluster, self._on_change)
        self._sights: dict[str, _Sight] = {}
        self._strays: dict[str, float] = {}
        self._soon = asyncio.Event()

    async def keep(self) -> None:
        """Look after everything until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._mirror.follow(), name="mirror")
            both.create_task(self._look_again_and_again(), name="keeper")

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("keeper.waited", error=(str(error) or repr(error)).splitlines()[0])
            await asyncio.sleep(_LOOK_SOON)
            try:
                await asyncio.wait_for(self._soon.wait(), _LOOK_EVERY - _LOOK_SOON)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        """Compare once. What is lent is read before the Jobs are looked at: a Job is never newer than its loan."""
        self._soon.clear()
        lent = await self._book.open(ExecutorName.KUBERNETES_JOB)
        if self._mirror.lists == 0:
            return  # the cluster has not been heard of yet
        handles = {one.handle for one in lent}
        self._sights = {name: sight for name, sight in self._sights.items() if name in handles}
        for one in lent:
            try:
                await self._see_to(one)
            except (ClusterTrouble, Unavailable) as trouble:
                log.warning("job.unsettled", run_id=one.run_id, job=one.handle, error=str(trouble))
        await self._send_away(handles)

    async def _see_to(self, lent: Lent) -> None:
        job, pod = self._mirror.jobs.get(lent.handle), self._mirror.pods.get(lent.handle)
        sight = self._sight(lent.handle, stage(job, pod))
        sight.was_there = sight.was_there or job is not None
        so_for = timedelta(seconds=time.monotonic() - sight.since)
        if lent.cancel_reason is not None:
            await self._cancel(lent, job, pod, lent.cancel_reason)
            return
        verdict = sight.verdict or judge(
            job,
            pod,
            so_for=so_for,
            starts_within=self._starts_within,
            was_there=sight.was_there,
            begun=lent.taken_by is not None,
        )
        if verdict is None or not (verdict.sure or lent.until < datetime.now(UTC)):
            return
        if job is not None and not job.over and not (pod is not None and pod.dead):
            sight.verdict = verdict
            if not job.going:
                await self._cluster.delete_job(lent.handle)
            return  # it might yet begin: nobody gets the run before it can't
        await self._settle(lent, verdict, job, pod)

    async def _cancel(self, lent: Lent, job: JobFacts | None, pod: PodFacts | None, reason: str) -> None:
        """Delete the Job; the run is over when nothing of it is left."""
        if job is not None:
            if not job.going:
                await self._cluster.delete_job(lent.handle)
        elif (pod is None or pod.dead) and not await self._cluster.has_job(lent.handle):
            await self._book.settle(lent.run_id, lent.attempt, Cancelled(reason=reason))

    async def _settle(self, lent: Lent, verdict: Verdict, job: JobFacts | None, pod: PodFacts | None) -> None:
        if job is None and await self._cluster.has_job(lent.handle):
            return  # the watch is behind, as it is while the API is away
        end_of_log = await self._cluster.end_of_log(pod.name) if verdict.has_log and pod is not None else ""
        status = await self._book.settle(lent.run_id, lent.attempt, verdict.outcome(end_of_log))
        if status is not None:
            log.info("job.settled", run_id=lent.run_id, attempt=lent.attempt, status=str(status), why=verdict.message)

    async def _send_away(self, handles: set[str]) -> None:
        """Delete Jobs whose attempt has its run no more."""
        now = time.monotonic()
        jobs = self._mirror.jobs
        strays = {name for name, job in jobs.items() if name not in handles and not job.over and not job.going}
        self._strays = {name: self._strays.get(name, now) for name in strays}
        due = [jobs[name] for name, since in self._strays.items() if now - since >= _FAREWELL]
        known = await self._known([job.run_id for job in due]) if due else set()
        for job in due:
            if job.run_id not in known:
                self._strays[job.name] = now  # another Flo's, perhaps; asked again only later
                continue
            try:
                await self._cluster.delete_job(job.name)
                log.info("job.sent_away", run_id=job.run_id, attempt=job.attempt, job=job.name)
            except (ClusterTrouble, Unavailable) as trouble:
                log.warning("job.stays", job=job.name, error=str(trouble))

    def _sight(self, name: str, now_is: str) -> _Sight:
        sight = self._sights.get(name)
        if sight is None:
            sight = self._sights[name] = _Sight(now_is, time.monotonic())
        elif sight.stage != now_is:
            sight.stage, sight.since = now_is, time.monotonic()
        return sight

    def _on_change(self, name: str) -> None:
        """Look soon when something has ended that may be unable to say so; what ends well tells its own end."""
        job, pod = self._mirror.jobs.get(name), self._mirror.pods.get(name)
        ended_badly = job is None or job.failed is not None or job.going
        if ended_badly or (pod is not None and (pod.phase == "Failed" or pod.exit_reason == "OOMKilled")):
            self._soon.set()
