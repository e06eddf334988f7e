"""What became of an attempt, by what its Job and its pod show. Pure: it is told how long things have been so.

Only what the attempt can't tell itself is judged here; one that ends well has said so to the API before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from schemas.json import JSONObject
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError
from workers.executors.kubernetes.facts import JobFacts, PodFacts

#: How long an attempt whose Job ended well may take to be over in SQL: its last word may still be on its way.
LAST_WORD: Final = timedelta(seconds=10)
#: How long it may take until Job and pod have both told what became of them: two watches, in no order.
BOTH_TOLD: Final = timedelta(seconds=3)
#: How long a Job may be missing, or suspended, once its attempt is lent: longer than its worker tries to create it.
NEVER_MADE: Final = timedelta(seconds=30)
#: How long an image may be missing, or a container not be made: registries and kubelets have hiccups.
HICCUP: Final = timedelta(seconds=60)
#: Pause before a run whose place was lost is tried again.
_AGAIN: Final = timedelta(seconds=1)

_PULLING: Final = frozenset({"ImagePullBackOff", "ErrImagePull", "RegistryUnavailable", "ImageInspectError"})
_NEVER_PULLED: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_NOT_MADE: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
#: What the kubelet says of a container whose command could not even be started.
_NOT_BEGUN: Final = frozenset({"StartError", "ContainerCannotRun"})
_NODE_GONE: Final = frozenset({"NodeLost", "NodeShutdown", "Terminated", "Preempting", "Shutdown", "NodeAffinity"})
#: Signals that come from outside: 128 + SIGKILL, 128 + SIGTERM.
_SIGNALLED: Final = frozenset({137, 143})
#: What `workers.runner.away` says of itself: the end could not be told, or there was nothing to execute (any more).
_UNTOLD: Final = frozenset({1, 3})
_MOST_SAID: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an attempt ended; None as kind says that it was lost through no fault of its own."""

    kind: ErrorKind | None
    message: str
    #: The end of the container's log says more.
    has_log: bool = False
    #: Nothing of the attempt is alive. Else the run may go to another only when its loan has run out: what is left of
    #: the attempt, on a node that nobody reaches, has stopped itself by then.
    sure: bool = True
    #: The limit that was hit, as the flow names it.
    raise_with: str | None = None

    def outcome(self, log: str = "") -> Outcome:
        """Give what is recorded; `log` is the end of what the container said."""
        message = f"{self.message}; the end of its log: {log[-_MOST_SAID:]}" if log else self.message
        if self.kind is None:
            return Retry(after=_AGAIN, reason=message)
        details: JSONObject | None = {"raise_with": self.raise_with} if self.raise_with else None
        return Failed(error=RunError(kind=self.kind, message=message, details=details))


def judge(
    job: JobFacts | None,
    pod: PodFacts | None,
    *,
    so_for: timedelta,
    starts_within: timedelta,
    was_there: bool,
    begun: bool,
) -> Verdict | None:
    """Say how an attempt that has not ended in SQL did end, or None while it may go on.

    `so_for` is how long Job and pod have been in this `stage`; `was_there` tells that the Job was seen before, `begun`
    that its pod has taken the order.
    """
    if job is None:
        return _without_job(pod, so_for, starts_within, was_there=was_there or begun)
    if job.succeeded:
        return _lost("the Job ended well, but the attempt never said how") if so_for >= LAST_WORD else None
    if job.failed == "DeadlineExceeded":
        return _too_long()
    if pod is not None and (ended := _of_pod(pod)) is not None:
        return ended
    exited = pod is not None and pod.phase == "Failed"
    if (job.failed is not None and exited) or ((job.failed is not None or exited) and so_for >= BOTH_TOLD):
        return _exited(pod) if pod is not None and exited else _given_up(job)
    if job.suspended and so_for >= min(NEVER_MADE, starts_within):
        return _lost("the run's Job was never let begin: its worker died, or lost the cluster's API")
    return None if begun or job.suspended else _not_begun(pod, so_for, starts_within)


def stage(job: JobFacts | None, pod: PodFacts | None) -> str:
    """Name what is waited for: `so_for` counts from when this last changed, whatever else is told meanwhile."""
    if job is None:
        return "no job"
    if job.over:
        return "over"
    if job.suspended:
        return "suspended"
    if pod is None:
        return "no pod"
    if pod.phase != "Pending":
        return pod.phase
    if pod.unschedulable is not None:
        return "no node"
    return "no image" if pod.waiting in _PULLING else "beginning"


def _without_job(
    pod: PodFacts | None, so_for: timedelta, starts_within: timedelta, *, was_there: bool
) -> Verdict | None:
    if pod is not None and not pod.dead:
        return None  # it is being ended
    if was_there:
        return _lost("somebody deleted the run's Job")
    if so_for >= min(NEVER_MADE, starts_within):
        return _lost("the run's Job was never created: its worker died, or lost the cluster's API")
    return None


def _of_pod(pod: PodFacts) -> Verdict | None:
    """Judge a pod that has ended, or that no longer has a node."""
    if pod.exit_reason == "OOMKilled":
        most = f" of {pod.memory}" if pod.memory else ""
        return Verdict(
            kind=ErrorKind.MEMORY_EXCEEDED,
            message=f"the run took more than its memory{most} and was ended; raise settings.resources.limits.memory",
            raise_with="settings.resources.limits.memory",
        )
    if pod.reason == "DeadlineExceeded":
        return _too_long()
    if pod.reason == "Evicted" and _is_its_own_doing(pod.message):
        return Verdict(
            kind=ErrorKind.OUTPUT_EXCEEDED,
            message=f"the run wrote more than it may and was evicted: {_said(pod.message)}; write less to /tmp",
        )
    if pod.reason == "Evicted":
        return _lost(f"its node evicted the run: {_said(pod.message)}", sure=pod.dead)
    if pod.disrupted is not None:
        return _lost(f"the cluster took the run's node away: {_said(pod.disrupted)}", sure=pod.exit_code is not None)
    if pod.reason in _NODE_GONE or pod.phase == "Unknown":
        why = f"the run's node was lost ({pod.reason or pod.phase}): {_said(pod.message)}"
        return _lost(why, sure=pod.exit_code is not None)
    return None


def _exited(pod: PodFacts) -> Verdict:
    code = pod.exit_code
    if pod.exit_reason in _NOT_BEGUN:
        return Verdict(
            kind=ErrorKind.INTERNAL,
            message=f"the runner could not be started: {_said(pod.exit_message)}; K8S_EXECUTOR_IMAGE must name an "
            "image of compose/Dockerfile.runner",
        )
    if code in _SIGNALLED:
        return _lost(f"somebody ended the run's container (exit code {code})")
    if code is None:
        return _lost(f"the run's pod failed: {_said(pod.message or pod.reason or 'no reason given')}")
    if code == 0:
        return _lost("the run's container ended well, but the attempt never said how")
    if code in _UNTOLD:
        return Verdict(kind=None, message=f"the runner could not do its work (exit code {code})", has_log=True)
    return Verdict(
        kind=ErrorKind.KILLED,
        message=f"the run's container ended with exit code {code} before the run did",
        has_log=True,
    )


def _given_up(job: JobFacts) -> Verdict:
    return _lost(f"the cluster gave the run's Job up ({job.failed}): {_said(job.message)}")


def _not_begun(pod: PodFacts | None, so_for: timedelta, starts_within: timedelta) -> Verdict | None:
    """Judge a pod that waits."""
    if pod is None:  # a quota, or an admission that refuses it: the Job itself says nothing of it
        if so_for >= starts_within:
            return _lost(f"the cluster made no pod for the run's Job in {_seconds(starts_within)}")
        return None
    if pod.phase != "Pending":
        return None
    if pod.unschedulable is not None:
        return _unplaced(pod, so_for, starts_within)
    if pod.waiting in _NEVER_PULLED or (pod.waiting in _PULLING and so_for >= min(HICCUP, starts_within)):
        return Verdict(
            kind=ErrorKind.INTERNAL,
            message=f"the run's image can't be had ({pod.waiting}): {_said(pod.waiting_message)}; check "
            "K8S_EXECUTOR_IMAGE, and imagePullSecrets in K8S_POD_TEMPLATE",
        )
    if pod.waiting in _NOT_MADE and so_for >= min(HICCUP, starts_within):
        return Verdict(
            kind=ErrorKind.INTERNAL,
            message=f"the run's container can't be made ({pod.waiting}): {_said(pod.waiting_message)}; check "
            "K8S_POD_TEMPLATE and K8S_EXECUTOR_IMAGE",
        )
    if so_for >= starts_within:
        return _lost(f"the run's pod did not begin in {_seconds(starts_within)} ({pod.waiting or 'no reason given'})")
    return None


def _unplaced(pod: PodFacts, so_for: timedelta, starts_within: timedelta) -> Verdict | None:
    if so_for < starts_within:
        return None
    return Verdict(
        kind=ErrorKind.UPSTREAM,
        message=f"no node of the cluster took the run for {_seconds(starts_within)}: {_said(pod.unschedulable or '')}; "
        "ask for less (resources), or have the operator add nodes or raise K8S_START_SECONDS",
    )


def _too_long() -> Verdict:
    return Verdict(
        kind=ErrorKind.TIMED_OUT,
        message="the run's Job took longer than it may and was ended; raise settings.max_execution_time_ms if the flow "
        "needs longer",
        raise_with="settings.max_execution_time_ms",
    )


def _lost(why: str, *, sure: bool = True) -> Verdict:
    return Verdict(kind=None, message=why, sure=sure)


def _is_its_own_doing(message: str) -> bool:
    """Tell a pod that wrote too much from one that was in the way: the next attempt would write as much."""
    return "emptyDir" in message or "EmptyDir" in message or "ephemeral local storage usage exceeds" in message


def _said(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}…"


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
