"""The double is held to what Kubernetes publishes: every object that it shows, at any time, is as the schemas say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.k8s_double.checks import mistakes
from tests.k8s_double.orders import a_job, an_order
from tests.k8s_double.running import NAMESPACE, Double, running_double
from workers.executors.kubernetes.manifest import secret_manifest

pytestmark = pytest.mark.timeout(60)

JOBS, PODS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", f"/api/v1/namespaces/{NAMESPACE}/pods"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    with running_double(tmp_path, "--cpu", "8", "--memory", "64Gi") as running:
        yield running


@pytest.fixture
def api(double: Double) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=double.url, headers={"Authorization": f"Bearer {double.token}"}, timeout=30) as client:
        yield client


def shown_until(api: httpx.Client, path: str, *last: str) -> list[dict[str, Any]]:
    """Read a watch from the beginning up to the line that has these texts."""
    lines = []
    with api.stream("GET", path, params={"watch": "true", "resourceVersion": "1"}) as stream:
        for line in stream.iter_lines():
            lines.append(json.loads(line))
            if all(text in line for text in last):
                break
    return lines


LIVES = {
    "succeeds": (["true"], "CompletionsReached"),
    "fails": (["sh", "-c", "exit 4"], "BackoffLimitExceeded"),
    "eats": (["sh", "-c", "x=$(head -c 400M /dev/zero | tr '\\0' x)"], "BackoffLimitExceeded"),
    "is not there": (["no-such-program"], "BackoffLimitExceeded"),
}


@pytest.mark.parametrize("life", LIVES)
def test_all_that_a_watch_tells_of_a_life_is_as_published(api: httpx.Client, life: str) -> None:
    command, end = LIVES[life]
    resources = {"limits": {"cpu": "1", "memory": "128Mi"}}
    job = a_job(an_order(backend_config={"resources": resources}), command=command)
    assert api.post(JOBS, json=job).status_code == 201

    told = shown_until(api, JOBS, end) + shown_until(api, PODS, '"terminated"')

    assert [mistakes(line["object"]) for line in told] == [[]] * len(told)
    assert {line["type"] for line in told} == {"ADDED", "MODIFIED"}


def test_lists_and_single_objects_and_refusals_are_as_published(api: httpx.Client) -> None:
    job = a_job(command=["sleep", "60"])
    made = api.post(JOBS, json=job)
    secret = secret_manifest(job, "token", owner=made.json()["metadata"]["uid"])
    name = job["metadata"]["name"]

    answers = [
        made,
        api.post(SECRETS, json=secret),
        api.get(JOBS),
        api.get(PODS, params={"limit": "1"}),
        api.get(f"{JOBS}/{name}"),
        api.post(JOBS, json=job),
        api.get(f"{JOBS}/nobody"),
        api.delete(f"{JOBS}/{name}", params={"propagationPolicy": "Foreground"}),
        httpx.get(str(api.base_url) + JOBS),
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 200, 200, 200, 409, 404, 200, 401]
    assert [mistakes(answer.json()) for answer in answers] == [[]] * len(answers)


def test_a_page_follows_on_a_page_until_history_is_forgotten(api: httpx.Client, double: Double) -> None:
    for number in range(5):
        api.post(JOBS, json=a_job(an_order(run_id=f"run_{number}"), command=["true"]))
    first = api.get(JOBS, params={"limit": "2"}).json()
    token = first["metadata"]["continue"]
    second = api.get(JOBS, params={"limit": "2", "continue": token}).json()

    assert first["metadata"]["remainingItemCount"] == 3
    assert len({each["metadata"]["name"] for each in first["items"] + second["items"]}) == 4
    api.post(JOBS, json=a_job(an_order(run_id="run_late"), command=["true"]))
    double.misbehave("compact")
    assert api.get(JOBS, params={"limit": "2", "continue": second["metadata"]["continue"]}).status_code == 410


def test_a_watch_from_before_history_was_forgotten_is_told_so(api: httpx.Client, double: Double) -> None:
    api.post(JOBS, json=a_job(command=["true"]))
    double.misbehave("compact")

    told = shown_until(api, JOBS, "ERROR")

    assert told[-1]["object"]["code"] == 410
    assert mistakes(told[-1]["object"]) == []


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        (("spec", "template", "spec", "restartPolicy"), "Always", 422),
        (("metadata", "labels", "flo.dev/app"), "not a label!", 422),
        (("metadata", "name"), "Upper_Case", 422),
        (("spec", "backofLimit"), 0, 400),
        (("spec", "activeDeadlineSeconds"), "soon", 400),
    ],
)
def test_what_a_real_api_refuses_is_refused(api: httpx.Client, path: tuple[str, ...], value: Any, status: int) -> None:
    job = a_job()
    part = job
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value

    answer = api.post(JOBS, json=job)

    assert answer.status_code == status
    assert mistakes(answer.json()) == []


def test_a_node_that_is_full_takes_no_more_until_there_is_room(api: httpx.Client) -> None:
    large = {"resources": {"limits": {"cpu": "6", "memory": "1Gi"}}}
    first, second = (
        a_job(an_order(run_id=run_id, backend_config=large), command=["sleep", "60"]) for run_id in ("run_a", "run_b")
    )
    api.post(JOBS, json=first)
    shown_until(api, PODS, '"Running"')
    api.post(JOBS, json=second)

    shown_until(api, PODS, '"Unschedulable"')
    api.delete(f"{JOBS}/{first['metadata']['name']}")

    shown_until(api, PODS, '"Running"', second["metadata"]["name"])
