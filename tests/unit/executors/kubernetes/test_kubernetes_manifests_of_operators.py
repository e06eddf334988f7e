"""The manifests in k8s/: as Kubernetes publishes that they must be, and in step with what the code asks for."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.settings import Settings, load_settings
from tests.k8s_double.checks import mistakes
from tests.k8s_double.orders import a_wish, an_order, some_terms
from workers.executors.kubernetes import cluster
from workers.executors.kubernetes.manifest import job_manifest
from workers.executors.kubernetes.terms import read_terms

FOLDER = Path(__file__).parents[4] / "k8s"
OBJECTS = [
    each
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name not in ("kustomization.yaml", "runner-pod.yaml")
    for each in yaml.safe_load_all(path.read_text())
]


def named(kind: str, name: str) -> Any:
    return next(each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("object_", OBJECTS, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_each_object_is_as_published(object_: dict[str, Any]) -> None:
    assert mistakes(object_) == []


def test_every_file_is_applied() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    named_there = {*kustomization["resources"], *kustomization["configMapGenerator"][0]["files"], "kustomization.yaml"}

    assert named_there == {path.name for path in FOLDER.glob("*.yaml")}


def test_a_run_has_the_labels_that_the_network_policy_selects() -> None:
    order = an_order()
    job: Any = job_manifest(order, a_wish(order), some_terms())
    selected = named("NetworkPolicy", "runs")["spec"]["podSelector"]["matchLabels"]

    assert job["spec"]["template"]["metadata"]["labels"].items() >= selected.items()


def test_no_run_reaches_the_metadata_service_or_the_network_within() -> None:
    blocks = [
        to["ipBlock"]
        for rule in named("NetworkPolicy", "runs")["spec"]["egress"]
        for to in rule["to"]
        if "ipBlock" in to
    ]

    assert {"169.254.0.0/16", "10.0.0.0/8", "fe80::/10"} <= {net for block in blocks for net in block["except"]}


def test_a_worker_has_the_verbs_that_the_code_uses_and_no_others() -> None:
    granted = {
        (resource, verb)
        for rule in named("Role", "flo-worker")["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    verbs = {"POST": "create", "DELETE": "delete", "GET": "get", "PATCH": "patch"}
    asked = {("jobs", "list"), ("jobs", "watch"), ("pods", "list"), ("pods", "watch"), ("pods/log", "get")}
    for call in ast.walk(ast.parse(inspect.getsource(cluster))):
        match call:
            case ast.Call(func=ast.Attribute(attr="_ask"), args=[ast.Constant(verb), ast.Constant(kind), *_]):
                asked.add((kind, verbs[verb]))

    assert granted == asked


def test_the_settings_are_settings() -> None:
    given = named("ConfigMap", "flo")["data"]
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}

    assert given.keys() <= known
    terms = read_terms(load_settings({**given, "K8S_POD_TEMPLATE": str(FOLDER / "runner-pod.yaml")}))
    assert terms.template["spec"]["serviceAccountName"] == "flo-run"


def test_a_run_with_the_template_is_as_published() -> None:
    order = an_order()
    template = yaml.safe_load((FOLDER / "runner-pod.yaml").read_text())

    assert mistakes(job_manifest(order, a_wish(order), some_terms(template=template))) == []
