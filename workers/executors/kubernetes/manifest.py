"""What is created for one attempt: a Job, and the Secret with its token. Pure.

Payload and secrets of the run are in neither: the runner asks the API for its order, and shows the token for it.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from schemas.json import JSONObject
from schemas.pod import PodWish, Resources
from workers.executors.base import RunOrder
from workers.executors.kubernetes.naming import APP_LABEL, ATTEMPT_LABEL, MARKS, RUN_LABEL, job_name, label_value
from workers.executors.kubernetes.terms import PodTerms

CONTAINER: Final = "runner"
_COMMAND: Final = ["python", "-P", "-m", "workers.runner.away"]
_TOKEN_FOLDER: Final = "/var/run/flo"
_TOKEN_FILE: Final = "token"
#: The user of `compose/Dockerfile.runner`; its group may read the token.
_USER: Final = 65532
#: What may be written into /tmp, the only place where anything can be.
_SCRATCH: Final = "1Gi"
#: Seconds beyond the flow's own limit, and the time to begin, after which the cluster ends a Job.
_GRACE: Final = 60
_STOP_SECONDS: Final = 30
#: Who asks for the order: a pod that is started again by its kubelet is still the same.
_UID: Final = {"name": "FLO_EXECUTOR_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}

#: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
_POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def job_manifest(order: RunOrder, wish: PodWish, terms: PodTerms) -> JSONObject:
    """Write the Job of one attempt: one pod, once. It is suspended: `Cluster.start_job` lets it begin."""
    metadata = _metadata(order, terms)
    longest = order.document.settings.max_execution_time + terms.starts_within
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(order), "namespace": terms.namespace, **metadata},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": math.ceil(longest.total_seconds()) + _GRACE,
            "ttlSecondsAfterFinished": math.ceil(terms.kept_for.total_seconds()),
            "template": {"metadata": metadata, "spec": _pod(order, wish, terms)},
        },
    }


def secret_manifest(job: JSONObject, token: str, *, owner: str) -> JSONObject:
    """Write the Secret that a Job's pod waits for; `owner` is the Job's uid, and the Secret goes with it."""
    metadata: Any = job["metadata"]
    name = metadata["name"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": metadata["labels"],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner}],
        },
        "data": {_TOKEN_FILE: b64encode(token.encode()).decode()},
    }


def _metadata(order: RunOrder, terms: PodTerms) -> JSONObject:
    """Labels to find it by, and annotations that say the same in full."""
    said = {"run": order.run_id, "app": order.app, "flow": order.flow, "version": str(order.version)}
    said |= {"attempt": str(order.attempt)} | ({"event": order.event} if order.event else {})
    said |= {"node": order.node} if order.node else {}
    given: Mapping[str, Any] = terms.template.get("metadata") or {}
    labels = {
        **(given.get("labels") or {}),
        **MARKS,
        "app.kubernetes.io/name": "flo-run",
        "app.kubernetes.io/part-of": "flo",
        RUN_LABEL: label_value(order.run_id),
        APP_LABEL: label_value(order.app),
        ATTEMPT_LABEL: str(order.attempt),
    }
    annotations = {f"flo.dev/{name}": value for name, value in said.items()}
    return {"labels": labels, "annotations": {**(given.get("annotations") or {}), **annotations}}


def _pod(order: RunOrder, wish: PodWish, terms: PodTerms) -> JSONObject:
    given: Mapping[str, Any] = terms.template.get("spec") or {}
    scratch = [{"name": "tmp", "emptyDir": {"sizeLimit": _SCRATCH}}]
    token = [{"name": "token", "secret": {"secretName": job_name(order), "defaultMode": 0o440}}]
    pod = {
        **given,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _STOP_SECONDS,
        "securityContext": {**_POD_SECURITY, **(given.get("securityContext") or {})},
        "nodeSelector": {**(given.get("nodeSelector") or {}), **wish.node_selector},
        "tolerations": [
            *(given.get("tolerations") or []),
            *(taint.model_dump(exclude_none=True) for taint in wish.tolerations),
        ],
        "affinity": wish.affinity or given.get("affinity"),
        "serviceAccountName": wish.service_account or given.get("serviceAccountName"),
        "runtimeClassName": wish.runtime_class or terms.runtime_class or given.get("runtimeClassName"),
        "containers": _containers(given, wish, terms),
        "volumes": [*(given.get("volumes") or []), *scratch, *token],
    }
    return {key: value for key, value in pod.items() if value not in (None, {}, [])}


def _containers(given: Mapping[str, Any], wish: PodWish, terms: PodTerms) -> list[JSONObject]:
    """Give the runner, and what the template puts beside it."""
    listed = {container["name"]: container for container in given.get("containers") or []}
    template = listed.pop(CONTAINER, {})
    variables = {
        **terms.variables,
        "FLO_URL": terms.api_url,
        "FLO_RUN_TOKEN_FILE": f"{_TOKEN_FOLDER}/{_TOKEN_FILE}",
        "FLO_HOME": "/tmp/flo",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
    }
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "token", "mountPath": _TOKEN_FOLDER, "readOnly": True},
    ]
    resources = wish.resources
    assert isinstance(resources, Resources), "pod_wish gives no wish without resources"
    runner = {
        **template,
        "name": CONTAINER,
        "image": terms.image,
        "command": template.get("command") or _COMMAND,
        "env": [*(template.get("env") or []), *({"name": name, "value": of} for name, of in variables.items()), _UID],
        "resources": {"limits": dict(resources.limits), "requests": resources.kept},
        "securityContext": {**_CONTAINER_SECURITY, **(template.get("securityContext") or {})},
        "volumeMounts": [*(template.get("volumeMounts") or []), *mounts],
        # The end of the log is the reason of a container that fails without a word.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if policy := wish.image_pull_policy or template.get("imagePullPolicy"):
        runner["imagePullPolicy"] = policy
    return [runner, *listed.values()]
