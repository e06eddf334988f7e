"""What is created for an attempt: names that are always the same, and pods that may do as little as possible."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError, Unavailable
from schemas.pod import PodAllowance, pod_wish
from schemas.settings import load_settings
from tests.k8s_double.checks import mistakes, nonsense
from tests.k8s_double.orders import RESOURCES, a_job, a_wish, an_order, some_terms
from workers.executors.kubernetes.manifest import job_manifest, secret_manifest
from workers.executors.kubernetes.naming import MARKS, job_name, label_value
from workers.executors.kubernetes.terms import read_terms

_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120)
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_ORDER = an_order()


def pod_of(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


@given(_NAMES, _NAMES, st.integers(1, 10**6), _NAMES)
def test_any_attempt_has_a_name_that_dns_takes(app: str, event: str, attempt: int, run_id: str) -> None:
    name = job_name(replace(_ORDER, app=app, event=event, attempt=attempt, run_id=run_id))

    assert _DNS_LABEL.fullmatch(name)


@given(st.tuples(_NAMES, _NAMES, st.integers(1, 99), _NAMES), st.tuples(_NAMES, _NAMES, st.integers(1, 99), _NAMES))
def test_attempts_have_the_same_name_only_if_they_are_the_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    names = [
        job_name(replace(_ORDER, app=app, event=event, attempt=attempt, run_id=run_id))
        for app, event, attempt, run_id in (one, other)
    ]

    assert (names[0] == names[1]) is (one == other)


def test_a_name_shows_people_app_event_and_attempt() -> None:
    assert job_name(an_order(app="Acme Inc.", event="nightly_report", attempt=3)).startswith(
        "flo-acme-inc-nightly-report-3-"
    )


@given(_NAMES)
def test_any_text_is_made_a_value_that_a_label_takes(text: str) -> None:
    assert _LABEL_VALUE.fullmatch(label_value(text))


def test_a_job_is_as_kubernetes_publishes_that_it_must_be() -> None:
    job = a_job()

    assert mistakes(job) == []
    assert list(nonsense(job)) == []


def test_a_job_runs_one_pod_once_and_not_for_ever() -> None:
    order = an_order()
    spec = a_job(order)["spec"]

    assert (spec["backoffLimit"], spec["completions"], pod_of({"spec": spec})["restartPolicy"]) == (0, 1, "Never")
    assert timedelta(seconds=spec["activeDeadlineSeconds"]) > order.document.settings.max_execution_time
    assert spec["ttlSecondsAfterFinished"] == 300


def test_a_pod_may_do_as_little_as_the_restricted_standard_says() -> None:
    pod = pod_of(a_job())
    container = pod["containers"][0]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {volume["name"]: volume for volume in pod["volumes"]}["tmp"]["emptyDir"]["sizeLimit"]


def test_requests_and_limits_reach_the_container() -> None:
    assert pod_of(a_job())["containers"][0]["resources"] == RESOURCES


def test_neither_payload_nor_token_is_in_a_job() -> None:
    text = json.dumps(a_job())

    assert "4111" not in text
    assert "FLO_RUN_TOKEN_FILE" in text
    assert 'FLO_RUN_TOKEN"' not in text


def test_labels_find_a_pod_and_annotations_say_it_in_full() -> None:
    order = an_order(app="ünicode & co")
    metadata = a_job(order)["spec"]["template"]["metadata"]

    assert metadata["labels"].items() >= MARKS.items()
    assert metadata["annotations"] == {
        "flo.dev/run": "run_1", "flo.dev/app": "ünicode & co", "flo.dev/flow": "hello", "flo.dev/version": "1",
        "flo.dev/attempt": "1", "flo.dev/event": "go",
    }  # fmt: skip


def test_the_job_of_a_node_names_the_node() -> None:
    assert a_job(an_order(node="resize"))["metadata"]["annotations"]["flo.dev/node"] == "resize"


def test_a_secret_goes_with_its_job() -> None:
    job = a_job()
    secret: Any = secret_manifest(job, "token", owner="uid-1")

    assert mistakes(secret) == []
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert pod_of(job)["volumes"][-1]["secret"]["secretName"] == secret["metadata"]["name"]


def test_what_a_run_is_granted_reaches_its_pod() -> None:
    wish = {
        "resources": RESOURCES, "node_selector": {"pool": "gpu"}, "service_account": "builder", "runtime_class": "kata",
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], "image_pull_policy": "Always",
        "affinity": {"nodeAffinity": {}},
    }  # fmt: skip
    allowed = PodAllowance(
        node_selector={"pool": ("gpu",)}, service_accounts=("builder",), runtime_classes=("kata",),
        tolerations=("gpu",), image_pull_policies=("Always",), affinity=True,
    )  # fmt: skip
    pod = pod_of(job_manifest(an_order(), pod_wish(wish, None, allowed), some_terms(runtime_class="gvisor")))

    assert (pod["nodeSelector"], pod["serviceAccountName"], pod["runtimeClassName"]) == (
        {"pool": "gpu"},
        "builder",
        "kata",
    )
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (pod["affinity"], pod["containers"][0]["imagePullPolicy"]) == ({"nodeAffinity": {}}, "Always")


def test_the_operators_template_stands_beside_what_flo_must_say() -> None:
    template = {
        "metadata": {"labels": {"team": "data", "app.kubernetes.io/managed-by": "helm"}},
        "spec": {
            "nodeSelector": {"pool": "runs"}, "imagePullSecrets": [{"name": "registry"}],
            "automountServiceAccountToken": True, "runtimeClassName": "gvisor",
            "containers": [{"name": "runner", "env": [{"name": "SSL_CERT_FILE", "value": "/ca.pem"}]}],
        },
    }  # fmt: skip
    order = an_order()
    job: Any = job_manifest(order, a_wish(order), some_terms(template=template))
    pod = pod_of(job)

    assert mistakes(job) == []
    assert (pod["nodeSelector"], pod["runtimeClassName"]) == ({"pool": "runs"}, "gvisor")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["automountServiceAccountToken"] is False
    assert job["metadata"]["labels"].items() >= {"team": "data", **MARKS}.items()
    assert {"name": "SSL_CERT_FILE", "value": "/ca.pem"} in pod["containers"][0]["env"]


def test_without_an_image_or_the_api_there_are_no_jobs() -> None:
    with pytest.raises(Unavailable, match="K8S_EXECUTOR_IMAGE"):
        read_terms(load_settings({"FLO_URL": "http://api"}))
    with pytest.raises(Unavailable, match="FLO_URL"):
        read_terms(load_settings({"K8S_EXECUTOR_IMAGE": "flo-runner"}))


def test_a_template_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("- not a pod")
    known = {"FLO_URL": "http://api", "K8S_EXECUTOR_IMAGE": "flo-runner", "K8S_POD_TEMPLATE": str(path)}

    with pytest.raises(SettingsError, match="no pod template"):
        read_terms(load_settings(known))


def test_a_runner_gets_the_modes_of_its_worker() -> None:
    known = {"FLO_URL": "http://api", "K8S_EXECUTOR_IMAGE": "flo-runner", "FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY"}

    assert read_terms(load_settings(known)).variables == {"FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY"}
