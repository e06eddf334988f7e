"""What the cluster has of ours, as one list and one watch of each kind tell it: no request for each Job, ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from schemas.errors import Unavailable
from workers.executors.kubernetes.cluster import Cluster, Kind
from workers.executors.kubernetes.errors import ClusterTrouble, TooOld
from workers.executors.kubernetes.facts import JobFacts, Object, PodFacts, job_facts, pod_facts

log = structlog.get_logger()

#: Pause before a watch that broke off is taken up again, in seconds; doubles while the API does not answer.
_AGAIN, _AGAIN_MOST = 0.2, 10.0


class Mirror:
    """Our Jobs by name, and their pods by the names of the Jobs."""

    def __init__(self, cluster: Cluster, on_change: Callable[[str], None]) -> None:
        """`on_change` is told the name of each Job about which something was learnt."""
        self._cluster = cluster
        self._on_change = on_change
        self.jobs: dict[str, JobFacts] = {}
        self.pods: dict[str, PodFacts] = {}
        #: Counts the lists of Jobs: what is not here, and was not in a newer list either, is not there.
        self.lists = 0

    async def follow(self) -> None:
        """Keep up with the cluster until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._follow("jobs"), name="watch jobs")
            both.create_task(self._follow("pods"), name="watch pods")

    async def _follow(self, kind: Kind) -> None:
        version: str | None = None
        pause = _AGAIN
        while True:
            try:
                if version is None:
                    listed, version = await self._cluster.list(kind)
                    self._replace(kind, listed)
                async for type_, object_ in self._cluster.watch(kind, version):
                    version = object_["metadata"]["resourceVersion"]
                    pause = _AGAIN
                    self._take(kind, type_, object_)
                await asyncio.sleep(_AGAIN)
            except TooOld:
                log.info("watch.too_old", kind=kind)
                version = None
            except (ClusterTrouble, Unavailable) as error:
                # Also for what the API forbids: an operator may grant it while we wait.
                log.warning("watch.broke", kind=kind, error=str(error), pause_s=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _AGAIN_MOST)

    def _replace(self, kind: Kind, listed: Iterable[Object]) -> None:
        if kind == "jobs":
            before = self.jobs
            self.jobs = {facts.name: facts for facts in map(job_facts, listed) if facts is not None}
            self.pods = {name: pod for name, pod in self.pods.items() if name in self.jobs or not pod.gone}
            self.lists += 1
            for name in before.keys() | self.jobs.keys():
                self._on_change(name)
        else:
            self.pods = {facts.job: facts for facts in map(pod_facts, listed) if facts is not None}
            for name in self.pods:
                self._on_change(name)

    def _take(self, kind: Kind, type_: str, object_: Object) -> None:
        if type_ == "BOOKMARK":
            return
        if kind == "jobs" and (job := job_facts(object_)) is not None:
            if type_ == "DELETED":
                self.jobs.pop(job.name, None)
                if (last := self.pods.get(job.name)) is not None and last.gone:
                    del self.pods[job.name]
            else:
                self.jobs[job.name] = job
            self._on_change(job.name)
        elif kind == "pods" and (pod := pod_facts(object_)) is not None:
            if type_ != "DELETED":
                self.pods[pod.job] = pod
            elif pod.job in self.jobs:
                self.pods[pod.job] = replace(pod, gone=True)
            else:
                self.pods.pop(pod.job, None)
            self._on_change(pod.job)
