"""Orders to make Jobs of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from schemas.catalog import load_catalog
from schemas.json import JSONObject
from schemas.pod import PodAllowance, PodWish, pod_wish
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from tests.k8s_double.running import IMAGE, NAMESPACE
from workers.executors.base import RunOrder
from workers.executors.kubernetes.manifest import job_manifest
from workers.executors.kubernetes.terms import PodTerms

RESOURCES: JSONObject = {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "10m", "memory": "64Mi"}}


def an_order(**given: Any) -> RunOrder:
    raw = {"name": "hello", "nodes": [{"id": "it", "node_type": "debug.log", "config": {}}], "connections": []}
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    document, _ = read_document(raw, catalog=catalog, max_inline_http=timedelta(minutes=5))
    known: dict[str, Any] = {
        "run_id": "run_1", "app": "acme", "flow": "hello", "version": 1, "attempt": 1, "document": document,
        "payload": {"card": "4111 1111"}, "backend_config": {"resources": RESOURCES}, "event": "go",
    }  # fmt: skip
    return RunOrder(**known | given)


def some_terms(**given: Any) -> PodTerms:
    return PodTerms(**{"namespace": NAMESPACE, "image": IMAGE, "api_url": "http://api:8080"} | given)


def a_wish(order: RunOrder) -> PodWish:
    return pod_wish(order.backend_config, order.document.settings.resources, PodAllowance())


def a_job(order: RunOrder | None = None, *, command: list[str] | None = None, **given: Any) -> Any:
    """Write a Job, with a command of the test's own if it names one; the rest is of the order."""
    order = order or an_order(**given)
    job: Any = job_manifest(order, a_wish(order), some_terms())
    container = job["spec"]["template"]["spec"]["containers"][0]
    if command is not None:  # nothing of ours is executed, so no token is mounted either
        container["command"] = command
        job["spec"]["suspend"] = False
        pod = job["spec"]["template"]["spec"]
        pod["terminationGracePeriodSeconds"] = 0
        pod["volumes"] = [volume for volume in pod["volumes"] if "secret" not in volume]
        container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "token"]
    return job
