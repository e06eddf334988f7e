"""What a Job and its pod show, and what that makes of an attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcome import ErrorKind, Failed, Retry
from workers.executors.kubernetes.facts import JobFacts, PodFacts, job_facts, pod_facts
from workers.executors.kubernetes.verdict import Verdict, judge

LONG, SHORT = timedelta(hours=1), timedelta(0)
STARTS_WITHIN = timedelta(minutes=5)
JOB = JobFacts(name="job", run_id="run_1", attempt=1)
FAILED = JobFacts(name="job", run_id="run_1", attempt=1, failed="BackoffLimitExceeded", message="no luck")


def a_pod(**status: Any) -> PodFacts:
    """Read a pod as the API shows it."""
    runner = {"name": "runner", "resources": {"limits": {"memory": "512Mi"}}}
    shown = {
        "metadata": {"name": "job-x", "labels": {"batch.kubernetes.io/job-name": "job"}},
        "spec": {"containers": [{"name": "sidecar"}, runner]},
        "status": {"phase": "Failed", **status},
    }
    found = pod_facts(shown)
    assert found is not None
    return found


def ended(code: int, reason: str = "Error", **more: str) -> PodFacts:
    state = {"terminated": {"exitCode": code, "reason": reason, **more}}
    return a_pod(containerStatuses=[{"name": "sidecar", "state": {}}, {"name": "runner", "state": state}])


def waiting(reason: str) -> PodFacts:
    state = {"waiting": {"reason": reason, "message": "why not"}}
    return a_pod(phase="Pending", containerStatuses=[{"name": "runner", "state": state}])


def judged(
    job: JobFacts | None, pod: PodFacts | None, *, so_for: timedelta = LONG, was_there: bool = True
) -> Verdict | None:
    return judge(job, pod, so_for=so_for, starts_within=STARTS_WITHIN, was_there=was_there, begun=False)


UNSCHEDULABLE = a_pod(
    phase="Pending",
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}],
)
MOVED = a_pod(
    phase="Running",
    conditions=[
        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
    ],
)


@pytest.mark.parametrize(
    ("job", "pod", "kind", "said"),
    [
        (JOB, ended(137, "OOMKilled"), ErrorKind.MEMORY_EXCEEDED, "more than its memory of 512Mi"),
        (FAILED, ended(5), ErrorKind.KILLED, "exit code 5"),
        (FAILED, ended(128, "StartError", message="exec: python: not found"), ErrorKind.INTERNAL, "python: not found"),
        (FAILED, a_pod(reason="DeadlineExceeded"), ErrorKind.TIMED_OUT, "max_execution_time_ms"),
        (
            JobFacts(name="job", run_id="r", attempt=1, failed="DeadlineExceeded"),
            ended(143),
            ErrorKind.TIMED_OUT,
            "longer than it may",
        ),
        (
            FAILED,
            a_pod(reason="Evicted", message='Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".'),
            ErrorKind.OUTPUT_EXCEEDED,
            "write less",
        ),
        (JOB, UNSCHEDULABLE, ErrorKind.UPSTREAM, "Insufficient cpu"),
        (JOB, waiting("ImagePullBackOff"), ErrorKind.INTERNAL, "K8S_EXECUTOR_IMAGE"),
        (JOB, waiting("ErrImagePull"), ErrorKind.INTERNAL, "why not"),
        (JOB, waiting("InvalidImageName"), ErrorKind.INTERNAL, "InvalidImageName"),
        (JOB, waiting("CreateContainerConfigError"), ErrorKind.INTERNAL, "K8S_POD_TEMPLATE"),
    ],
)
def test_what_would_happen_again_is_the_end_and_names_the_fix(
    job: JobFacts, pod: PodFacts, kind: ErrorKind, said: str
) -> None:
    verdict = judged(job, pod)

    assert verdict is not None
    outcome = verdict.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.error.kind is kind
    assert said in outcome.error.message


@pytest.mark.parametrize(
    ("job", "pod", "said"),
    [
        (FAILED, ended(1), "could not do its work"),
        (FAILED, ended(137), "somebody ended"),
        (FAILED, ended(143), "somebody ended"),
        (FAILED, a_pod(reason="Evicted", message="The node was low on resource: memory."), "evicted"),
        (FAILED, a_pod(reason="NodeLost"), "node was lost"),
        (JOB, a_pod(phase="Unknown"), "node was lost"),
        (JOB, MOVED, "took the run's node away: preempted"),
        (FAILED, None, "no luck"),
        (JobFacts(name="job", run_id="r", attempt=1, succeeded=True), ended(0), "never said how"),
        (None, None, "somebody deleted"),
        (JOB, None, "made no pod"),
        (JobFacts(name="job", run_id="r", attempt=1, suspended=True), None, "never let begin"),
        (JOB, waiting("ContainerCreating"), "did not begin in 300 s"),
    ],
)
def test_what_the_flow_has_no_part_in_is_tried_again(job: JobFacts | None, pod: PodFacts | None, said: str) -> None:
    verdict = judged(job, pod)

    assert verdict is not None
    outcome = verdict.outcome()
    assert isinstance(outcome, Retry)
    assert said in outcome.reason


@pytest.mark.parametrize(
    ("job", "pod"),
    [
        (JOB, None),
        (JOB, UNSCHEDULABLE),
        (JobFacts(name="job", run_id="r", attempt=1, suspended=True), None),
        (JOB, waiting("ImagePullBackOff")),
        (JOB, waiting("CreateContainerConfigError")),
        (JOB, a_pod(phase="Running")),
        (JOB, ended(143)),
        (FAILED, None),
        (FAILED, a_pod(phase="Running")),
        (JobFacts(name="job", run_id="r", attempt=1, succeeded=True), ended(0)),
    ],
)
def test_what_may_yet_be_told_otherwise_is_waited_for(job: JobFacts, pod: PodFacts | None) -> None:
    assert judged(job, pod, so_for=SHORT) is None


def test_a_job_that_runs_is_left_alone_however_long_it_takes() -> None:
    assert judged(JOB, a_pod(phase="Running")) is None


def test_a_pod_that_has_taken_its_order_is_not_waited_for_whatever_the_watch_shows() -> None:
    verdict = judge(JOB, UNSCHEDULABLE, so_for=LONG, starts_within=STARTS_WITHIN, was_there=True, begun=True)

    assert verdict is None


def test_a_job_that_is_gone_waits_for_its_pod_to_be_gone_too() -> None:
    assert judged(None, a_pod(phase="Running")) is None
    assert judged(None, ended(143)) is not None


@pytest.mark.parametrize(("pod", "sure"), [(MOVED, False), (a_pod(phase="Unknown"), False), (ended(137), True)])
def test_a_run_whose_pod_may_be_alive_waits_for_its_loan_to_run_out(pod: PodFacts, sure: bool) -> None:
    verdict = judged(FAILED, pod)

    assert verdict is not None
    assert verdict.sure is sure


def test_a_job_that_was_never_there_may_be_on_its_way() -> None:
    assert judged(None, None, so_for=SHORT, was_there=False) is None
    assert judged(None, None, so_for=LONG, was_there=False) is not None


def test_the_end_of_the_log_is_told_with_an_exit_code() -> None:
    verdict = judged(FAILED, ended(5))

    assert verdict is not None
    outcome = verdict.outcome("Traceback: no such module")
    assert isinstance(outcome, Failed)
    assert outcome.error.message.endswith("the end of its log: Traceback: no such module")


_KEYS = [
    "metadata", "annotations", "labels", "status", "spec", "conditions", "type", "containers", "name", "state",
    "runner", "containerStatuses", "waiting", "terminated", "reason", "job-name", "flo.dev/run", "flo.dev/attempt",
    "resources",
]  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON))
def test_no_object_breaks_the_reading(shown: dict[str, Any]) -> None:
    facts = pod_facts({**shown, "metadata": {"labels": {"job-name": "job"}}})

    assert facts is None or facts.job == "job"
    job_facts(shown)


@pytest.mark.parametrize(
    ("job", "pod", "limit"),
    [
        (FAILED, ended(137, "OOMKilled"), "settings.resources.limits.memory"),
        (JOB, a_pod(reason="DeadlineExceeded"), "settings.max_execution_time_ms"),
    ],
)
def test_a_limit_that_was_hit_is_named_for_those_who_word_it_otherwise(
    job: JobFacts, pod: PodFacts, limit: str
) -> None:
    verdict = judged(job, pod)
    assert verdict is not None

    outcome = verdict.outcome()

    assert isinstance(outcome, Failed)
    assert outcome.error.details == {"raise_with": limit}
