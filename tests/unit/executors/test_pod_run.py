"""What a run that is one node in a pod is made of: its flow's document, and what the try at it is given."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Refused
from schemas.flow import FlowDocument, FlowSettings, Node, NodeResources
from schemas.pod import PodAllowance, pod_wish
from schemas.run import EventType, Happening
from workers.executors.base import RunOrder
from workers.executors.solo.pod import pod_run

GIVEN = {"attempt": 3, "payload": None, "brought": {"n": 1}, "kept": [[0, "done"]]}
ENDED = Happening(EventType.NODE_STARTED, {"attempt": 3}, "it")


def an_order(*, place: Any = "pod", payload: Any = GIVEN, **resources: Any) -> RunOrder:
    has = NodeResources(**{"memory_mb": 512, **resources})
    node = Node(id="it", node_type="code.javascript", config={"code": "x"}, execution_mode=place, resources=has)
    document = FlowDocument(
        name="main",
        nodes=(Node(id="other", node_type="debug.log"), node),
        settings=FlowSettings(max_execution_time_ms=60_000),
    )
    return RunOrder(
        run_id="run_1", app="app", flow="main", version=2, attempt=4, document=document, payload=payload,
        backend_config={"runtime_class": "kata", "resources": {"limits": {"cpu": "9", "memory": "9Gi"}}},
        past=[ENDED],
    )  # fmt: skip


def test_it_has_no_other_node_and_finds_its_inputs_and_earlier_tries_in_its_past() -> None:
    made = pod_run(an_order(), "it")

    assert [node.id for node in made.document.nodes] == ["before", "it"]
    assert [(said.type, said.node_id) for said in made.past] == [
        (EventType.NODE_STARTED, "it"), (EventType.DATA, "it"), (EventType.NODE_COMPLETED, "before"),
        (EventType.NODE_STARTED, "it"),
    ]  # fmt: skip
    assert (made.run_id, made.flow, made.version, made.attempt) == ("run_1", "main", 2, 4)


def test_its_pod_has_its_resources_and_all_else_that_its_caller_asked_for() -> None:
    made = pod_run(an_order(cpus=0.25), "it")

    wish = pod_wish(made.backend_config, None, PodAllowance(runtime_classes=("kata",)))

    assert wish.resources is not None
    assert wish.resources.limits == wish.resources.kept == {"memory": "512Mi", "cpu": "250m"}
    assert wish.runtime_class == "kata"


def test_one_that_does_not_say_how_many_processors_has_one() -> None:
    limits: Any = pod_run(an_order(), "it").backend_config["resources"]

    assert limits["limits"]["cpu"] == "1000m"


@pytest.mark.parametrize(("timeout_ms", "longest"), [(None, 60_000), (90_000, 91_000)])
def test_it_may_take_as_long_as_it_says_else_as_its_flow(timeout_ms: int | None, longest: int) -> None:
    made = pod_run(an_order(timeout_ms=timeout_ms), "it")

    assert made.document.settings.max_execution_time_ms == longest


@pytest.mark.parametrize("place", ["inline", "sandbox"])
def test_a_node_that_says_no_pod_gets_none_whatever_an_engine_has_asked_for(place: str) -> None:
    with pytest.raises(Refused, match='node "it" may not run in a pod here'):
        pod_run(an_order(place=place), "it")


def test_a_node_that_the_flow_does_not_have_is_refused() -> None:
    with pytest.raises(Refused, match='node "gone"'):
        pod_run(an_order(), "gone")
