"""The few facts that count about a Job and its pod, out of the objects that the cluster shows. Pure.

Objects are taken as they come: what is missing or of another shape is simply not known. A thousand of these are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workers.executors.kubernetes.manifest import CONTAINER

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """One of our Jobs."""

    name: str
    run_id: str
    attempt: int
    succeeded: bool = False
    #: Why the cluster gave it up, and what it says about that; None while it has not.
    failed: str | None = None
    message: str = ""
    #: It has been told to go, and waits for its pod.
    going: bool = False
    #: Its worker has not let it begin yet.
    suspended: bool = False

    @property
    def over(self) -> bool:
        return self.succeeded or self.failed is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """The pod of one of our Jobs."""

    name: str
    job: str
    phase: str = "Pending"
    #: Why the pod as a whole ended: Evicted, NodeLost, DeadlineExceeded.
    reason: str | None = None
    message: str = ""
    #: What its container waits for: ImagePullBackOff, CreateContainerConfigError.
    waiting: str | None = None
    waiting_message: str = ""
    exit_code: int | None = None
    exit_reason: str | None = None
    exit_message: str = ""
    #: Why no node takes it; None when one does.
    unschedulable: str | None = None
    #: Why the cluster took its node away (condition DisruptionTarget).
    disrupted: str | None = None
    memory: str = ""
    #: The cluster has it no more; what it said last may still tell why.
    gone: bool = False

    @property
    def dead(self) -> bool:
        """Tell whether nothing of it runs any more, as far as the cluster can know."""
        return self.gone or self.exit_code is not None or self.phase in ("Succeeded", "Failed")


def job_facts(job: Object) -> JobFacts | None:
    """Read a Job; None when it is not of an attempt."""
    metadata = _part(job, "metadata")
    said = _part(metadata, "annotations")
    run_id, attempt = said.get("flo.dev/run"), said.get("flo.dev/attempt")
    if not isinstance(run_id, str) or not isinstance(attempt, str) or not attempt.isdecimal():
        return None
    conditions = {each["type"]: each for each in _conditions(job)}
    failed = conditions.get("Failed")
    # Kubernetes 1.31 says why before it has ended the pods: that is certain enough.
    failed = failed or conditions.get("FailureTarget")
    return JobFacts(
        name=str(metadata.get("name", "")),
        run_id=run_id,
        attempt=int(attempt),
        succeeded="Complete" in conditions,
        failed=str(failed.get("reason", "Failed")) if failed else None,
        message=str(failed.get("message", "")) if failed else "",
        going=metadata.get("deletionTimestamp") is not None,
        suspended=_part(job, "spec").get("suspend") is True,
    )


def pod_facts(pod: Object) -> PodFacts | None:
    """Read a pod; None when it is not of a Job."""
    metadata, status = _part(pod, "metadata"), _part(pod, "status")
    labels = _part(metadata, "labels")
    job = labels.get("batch.kubernetes.io/job-name", labels.get("job-name"))
    if not isinstance(job, str):
        return None
    conditions = {each["type"]: each for each in _conditions(pod)}
    state = _part(next(_ours(status.get("containerStatuses")), {}), "state")
    waiting, ended = _part(state, "waiting"), _part(state, "terminated")
    unplaced = conditions.get("PodScheduled", {})
    moved = conditions.get("DisruptionTarget")
    limits = _part(_part(next(_ours(_part(pod, "spec").get("containers")), {}), "resources"), "limits")
    return PodFacts(
        name=str(metadata.get("name", "")),
        job=job,
        phase=str(status.get("phase", "Pending")),
        reason=_text(status.get("reason")),
        message=str(status.get("message", "")),
        waiting=_text(waiting.get("reason")),
        waiting_message=str(waiting.get("message", "")),
        exit_code=ended.get("exitCode") if isinstance(ended.get("exitCode"), int) else None,
        exit_reason=_text(ended.get("reason")),
        exit_message=str(ended.get("message", "")),
        unschedulable=str(unplaced.get("message", "")) if unplaced.get("reason") == "Unschedulable" else None,
        disrupted=str(moved.get("message") or moved.get("reason", "")) if moved else None,
        memory=str(limits.get("memory", "")),
    )


def _conditions(thing: Object) -> Iterator[Object]:
    """Give the conditions that hold, and that a pod has not been scheduled, which is told by one that does not."""
    listed = _part(thing, "status").get("conditions")
    for each in listed if isinstance(listed, list) else ():
        known = isinstance(each, dict) and isinstance(each.get("type"), str)
        if known and (each.get("status") == "True" or each["type"] == "PodScheduled"):
            yield each


def _ours(listed: object) -> Iterator[Object]:
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("name") == CONTAINER:
            yield each


def _part(thing: object, key: str) -> Object:
    found = thing.get(key) if isinstance(thing, Mapping) else None
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
