"""The Job controller: one pod for each Job, its end told in the Job's status, and what goes when a Job goes."""

from __future__ import annotations

import asyncio
import copy
import secrets
from typing import Any

from tests.k8s_double.kubelet import Kubelet
from tests.k8s_double.shelf import Object, Shelf, timestamp


class Jobs:
    """Makes pods of Jobs, and Jobs over."""

    def __init__(self, shelf: Shelf, kubelet: Kubelet) -> None:
        self._shelf = shelf
        self._kubelet = kubelet
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, given: Object) -> Object:
        """Store a Job as the API server completes it, and see to it that it is done. Raises Exists."""
        given = copy.deepcopy(given)
        template = given["spec"]["template"]
        job = self._shelf.create("Job", given)
        uid, name = job["metadata"]["uid"], job["metadata"]["name"]
        labels = {
            "controller-uid": uid, "job-name": name,
            "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        }  # fmt: skip
        metadata = template.get("metadata", {})
        template["metadata"] = {**metadata, "labels": {**metadata.get("labels", {}), **labels}}
        spec = {
            "template": template,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
            "completionMode": "NonIndexed",
            "suspend": given["spec"].get("suspend", False),
        }
        job = self._shelf.change(job, {"spec": spec})
        if not job["spec"]["suspend"]:
            self._start(self._see_to(job), f"job {name}")
        return job

    def patch(self, job: Object, suspend: bool) -> Object:
        """Let a suspended Job begin; the only change that is known here."""
        if job["spec"]["suspend"] and not suspend:
            job = self._shelf.change(job, {"spec": {"suspend": False}})
            self._start(self._see_to(job), f"job {job['metadata']['name']}")
        return job

    def delete(self, job: Object, propagation: str) -> None:
        """Let a Job go, and what belongs to it: after it (Background), before it (Foreground), or not (Orphan)."""
        if propagation == "Foreground":
            going = {"deletionTimestamp": timestamp(), "finalizers": ["foregroundDeletion"]}
            self._shelf.change(job, {"metadata": {**going, "deletionGracePeriodSeconds": 0}})
            self._start(self._go_after_its_own(job), f"delete {job['metadata']['name']}")
            return
        self._shelf.remove(job)
        if propagation == "Background":
            self._let_go_of_its_own(job)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _see_to(self, job: Object) -> None:
        pod = self._pod(job)
        job = self._status(job, {"startTime": timestamp(), "active": 1, "ready": 0})
        deadline = job["spec"].get("activeDeadlineSeconds")
        try:
            async with asyncio.timeout(deadline):
                succeeded = await self._kubelet.run(pod)
        except TimeoutError:
            why = _condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
            job = self._status(job, {"conditions": [why]})
            await self._kubelet.ended(pod)
            self._over(job, [why, {**why, "type": "Failed"}])
        else:
            if succeeded:
                why = _condition(
                    "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
                )
            else:
                why = _condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            self._over(job, [why, {**why, "type": "Complete" if succeeded else "Failed"}])
        if (keep := job["spec"].get("ttlSecondsAfterFinished")) is not None:
            await asyncio.sleep(keep)
            if (left := self._stored(job)) is not None:
                self.delete(left, "Background")

    def _pod(self, job: Object) -> Object:
        template = copy.deepcopy(job["spec"]["template"])
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}
        metadata = {
            **template["metadata"],
            "name": f"{name}-{secrets.token_hex(3)[:5]}",
            "namespace": job["metadata"]["namespace"],
            "ownerReferences": [{**owner, "blockOwnerDeletion": True}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        return self._shelf.create("Pod", {**pod, "status": {"phase": "Pending", "qosClass": "Burstable"}})

    def _over(self, job: Object, conditions: list[dict[str, str]]) -> None:
        complete = conditions[-1]["type"] == "Complete"
        status = {"conditions": conditions, "active": 0, "succeeded" if complete else "failed": 1}
        self._status(job, {**status, **({"completionTime": timestamp()} if complete else {})})

    def _status(self, job: Object, changes: dict[str, Any]) -> Object:
        """Note how a Job stands, unless it is gone."""
        return self._shelf.change(job, {"status": changes}) if self._stored(job) is not None else job

    def _stored(self, job: Object) -> Object | None:
        stored = self._shelf.get("Job", job["metadata"]["namespace"], job["metadata"]["name"])
        return stored if stored is not None and stored["metadata"]["uid"] == job["metadata"]["uid"] else None

    async def _go_after_its_own(self, job: Object) -> None:
        for pod in self._its_own(job, "Pod"):
            await self._kubelet.ended(pod)
        self._let_go_of_its_own(job)
        if (left := self._stored(job)) is not None:
            self._shelf.remove(left)

    def _let_go_of_its_own(self, job: Object) -> None:
        for pod in self._its_own(job, "Pod"):
            self._kubelet.end(pod)
        for secret in self._its_own(job, "Secret"):
            self._shelf.remove(secret)

    def _its_own(self, job: Object, kind: str) -> list[Object]:
        uid = job["metadata"]["uid"]
        stored = self._shelf.all(kind, job["metadata"]["namespace"])
        return [each for each in stored if uid in {by["uid"] for by in each["metadata"].get("ownerReferences", [])}]

    def _start(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _condition(type_: str, reason: str, message: str) -> dict[str, str]:
    now = timestamp()
    said = {"type": type_, "status": "True", "reason": reason, "message": message}
    return {**said, "lastProbeTime": now, "lastTransitionTime": now}
