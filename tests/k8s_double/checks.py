"""What the API refuses: objects that are not as the published schemas say, and those that make no sense."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from schemas.pod import amount
from tests.k8s_double.shelf import Object

_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII
)
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
#: The release whose schemas are taken; `kubernetes-validate` ships those of the last ones.
_RELEASE = "v1.37.0-local-strict"


@cache
def validator(api_version: str, kind: str) -> jsonschema_rs.Validator:
    """Make the validator of a kind, by the schema that Kubernetes publishes, which knows no key but its own."""
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / _RELEASE
    published = json.loads((folder / "_definitions.json").read_text())
    group, _, version = api_version.rpartition("/")
    room = f"io.k8s.api.{group.split('.')[0] or 'core'}"
    if kind == "Status":
        room = "io.k8s.apimachinery.pkg.apis.meta"
    return jsonschema_rs.validator_for({**published, "$ref": f"#/$defs/{room}.{version}.{kind}"})


def mistakes(object_: Object) -> list[str]:
    """List where an object is not as its schema says."""
    found = validator(object_["apiVersion"], object_["kind"]).iter_errors(object_)
    return [f"{'.'.join(map(str, each.instance_path)) or '$'}: {each.message}" for each in found]


def nonsense(object_: Object) -> Iterator[str]:
    """List what the real API refuses though the schema allows it (422), as far as Flo could get it wrong."""
    metadata = object_["metadata"]
    if not _NAME.fullmatch(metadata["name"]):
        yield f'metadata.name: Invalid value: "{metadata["name"]}": must be a DNS-1123 label of at most 63 characters'
    yield from _labels(metadata, "metadata")
    if object_["kind"] == "Job":
        template = object_["spec"]["template"]
        yield from _labels(template.get("metadata", {}), "spec.template.metadata")
        yield from _pod(template["spec"])


def _labels(metadata: dict[str, Any], path: str) -> Iterator[str]:
    for key, value in metadata.get("labels", {}).items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(value):
            yield f'{path}.labels: Invalid value: "{key}={value}"'
    for key in metadata.get("annotations", {}):
        if not _LABEL_KEY.fullmatch(key):
            yield f'{path}.annotations: Invalid value: "{key}"'


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    if spec.get("restartPolicy") not in ("Never", "OnFailure"):
        yield 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for index, container in enumerate(spec["containers"]):
        path = f"spec.template.spec.containers[{index}]"
        resources = container.get("resources", {})
        for name, wanted in resources.get("requests", {}).items():
            most = resources.get("limits", {}).get(name)
            if most is not None and amount(wanted) > amount(most):
                yield f'{path}.resources.requests: Invalid value: "{wanted}": must be at most the {name} limit'
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f'{path}.volumeMounts: Not found: "{mount["name"]}"'
