"""What a flow may say of nodes that run alone, and how each mistake is worded."""

from __future__ import annotations

from typing import Any

import pytest
from document_maker import CAP, code, flow, mistakes_in, node, read, wire

from schemas.catalog import load_catalog
from schemas.errors import Invalid
from schemas.flow import Node, NodeResources
from schemas.flow_schema import flow_schema
from schemas.nodes.spec import SoloBounds
from schemas.settings import load_settings
from schemas.solo import bounds_of, made_to_stay, place_of, with_pods
from schemas.validation import read_document


def http(**more: Any) -> dict[str, Any]:
    config = {"url": "http://x", **more.pop("config", {})}
    return node("a", "http.request", **{**more, "config": config})


def place(raw: dict[str, Any]) -> str:
    catalog = load_catalog()
    (found,) = read(flow(raw))[0].nodes
    return place_of(found, catalog[found.node_type].config.model_validate(found.config))


def test_a_node_runs_inline_unless_it_says_otherwise() -> None:
    assert place(code("a")) == "inline"
    assert place(http()) == "inline"


@pytest.mark.parametrize("mode", ["inline", "sandbox", "pod"])
def test_a_node_says_where_it_runs_beside_its_config_and_a_request_also_in_it(mode: str) -> None:
    assert place({**code("a"), "execution_mode": mode}) == mode
    assert place(http(execution_mode=mode)) == mode
    assert place(http(config={"execution_mode": mode})) == mode
    assert place(http(execution_mode=mode, config={"execution_mode": mode})) == mode


def test_a_request_that_says_two_different_things_is_refused() -> None:
    found = mistakes_in(flow(http(execution_mode="pod", config={"execution_mode": "sandbox"})))

    assert found == {
        "nodes[0].execution_mode": 'node "a": execution_mode is "pod" here and "sandbox" in config | keep one of them'
    }


def test_a_word_that_is_no_place_is_named_with_those_that_are() -> None:
    found = mistakes_in(flow({**code("a"), "execution_mode": "sanbox"}))

    assert "'inline', 'sandbox' or 'pod'" in found["nodes[0].execution_mode"]
    assert 'did you mean "sandbox"?' in found["nodes[0].execution_mode"]


def test_resources_of_a_node_that_runs_inline_are_refused() -> None:
    found = mistakes_in(flow({**code("a"), "resources": {"memory_mb": 512}}))

    assert found == {
        "nodes[0].resources": 'node "a": resources are those of a node\'s own sandbox, and this node runs inline'
        ' | set execution_mode: "sandbox", or remove resources'
    }


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ({"memory_mb": 64}, "nodes[0].resources.memory_mb"),
        ({"cpus": 0}, "nodes[0].resources.cpus"),
        ({"timeout_ms": 0}, "nodes[0].resources.timeout_ms"),
        ({"memory": 512}, "nodes[0].resources.memory"),
    ],
)
def test_every_resource_is_checked(resources: dict[str, Any], path: str) -> None:
    assert path in mistakes_in(flow({**code("a"), "execution_mode": "sandbox", "resources": resources}))


def test_more_than_the_operator_allows_is_refused_with_the_setting_that_says_so() -> None:
    raw = flow({**code("a"), "execution_mode": "sandbox", "resources": {"memory_mb": 4096, "cpus": 8}})
    catalog = load_catalog(solo=SoloBounds(memory_mb=1024, cpus=2))

    with pytest.raises(Invalid) as refused:
        read_document(raw, catalog=catalog, max_inline_http=CAP)

    assert {problem.path: (problem.message, problem.fix) for problem in refused.value.problems} == {
        "nodes[0].resources.memory_mb": (
            'node "a": memory_mb is 4096, but a node that runs alone may have at most 1024 here',
            "ask for 1024 or less, or have the operator raise FLO_SOLO_MEMORY_MB",
        ),
        "nodes[0].resources.cpus": (
            'node "a": cpus is 8, but a node that runs alone may have at most 2 here',
            "ask for 2 or less, or have the operator raise FLO_SOLO_CPUS",
        ),
    }


def test_the_bounds_are_the_operators_settings() -> None:
    assert bounds_of(load_settings({})) == SoloBounds(memory_mb=2560, cpus=1024)
    assert bounds_of(load_settings({"FLO_SOLO_MEMORY_MB": "512", "FLO_SOLO_CPUS": "1.5"})) == SoloBounds(
        memory_mb=512, cpus=1.5
    )


def test_two_time_outs_of_one_node_are_refused() -> None:
    raw = {**code("a", timeout_ms=100), "execution_mode": "sandbox", "resources": {"timeout_ms": 1000}}

    assert mistakes_in(flow(raw)) == {
        "nodes[0].resources.timeout_ms": 'node "a": resources.timeout_ms and the time-out in config both say how long'
        " | keep one of them"
    }


@pytest.mark.parametrize(
    ("node_type", "config"),
    [
        ("wait.webhook", {}),
        ("wait.approval", {}),
        ("wait.url", {}),
        ("flow.call", {"flow": "other", "mode": "run"}),
        ("time.delay", {"delay_ms": 60_001}),
    ],
)
def test_a_node_that_parks_its_run_cant_run_alone(node_type: str, config: dict[str, Any]) -> None:
    found = mistakes_in(flow(node("a", node_type, config=config, execution_mode="sandbox")))

    assert "can't run alone: it parks its run" in found["nodes[0].execution_mode"]


@pytest.mark.parametrize(
    ("node_type", "config"), [("flow.call", {"flow": "other"}), ("time.delay", {"delay_ms": 60_000})]
)
def test_one_that_only_might_have_parked_can(node_type: str, config: dict[str, Any]) -> None:
    read(flow(node("a", node_type, config=config, execution_mode="sandbox")))


@pytest.mark.parametrize("where", [{"execution_mode": "pod"}, {"config": {"execution_mode": "sandbox"}}])
def test_a_request_that_runs_alone_has_no_cap(where: dict[str, Any]) -> None:
    where = {**where, "config": {**where.get("config", {}), "timeout_ms": 600_000}}

    read(flow(http(**where)))


def test_nodes_inside_a_node_are_held_to_the_same() -> None:
    inner = {"node_type": "http.request", "config": {"url": "http://x"}, "resources": {"cpus": 1}}

    assert "nodes[0].config.node.resources" in mistakes_in(flow(node("a", "flow.map", config={"node": inner})))


def test_the_schema_for_editors_knows_both_keys() -> None:
    parts: Any = flow_schema(load_catalog().list())["$defs"]

    assert {"execution_mode", "resources"} <= set(parts["Node"]["properties"])
    assert set(parts["NodeResources"]["properties"]) == {"memory_mb", "cpus", "timeout_ms"}


def test_what_is_told_inside_a_sandbox_stays_there_and_leaves_what_is_around_its_tries_outside() -> None:
    given = Node.model_validate(
        {
            **code("a"), "execution_mode": "pod", "resources": {"timeout_ms": 5000, "memory_mb": 256},
            "retry_policy": {}, "cache": {"ttl_ms": 1}, "bulkhead": {"key": "k", "max_concurrent": 1},
        }
    )  # fmt: skip

    told = made_to_stay(given)

    assert told.execution_mode == "inline"
    assert told.config == {"code": "export default () => 1", "timeout_ms": 5000}
    assert told.resources == NodeResources(timeout_ms=5000, memory_mb=256)
    assert (told.retry_policy, told.cache, told.bulkhead) == (None, None, None)


def test_what_stands_inside_a_node_that_is_alone_is_alone_with_it() -> None:
    inner = http(config={"execution_mode": "sandbox"})
    deep = node("d", "flow.map", config={"node": {**inner, "execution_mode": "pod"}})
    race = node("r", "flow.race", config={"flows": {"x": {"nodes": [deep]}, "y": {"nodes": [inner]}}})
    lookalike = {"node_type": "http.request", "execution_mode": "sandbox"}

    told = made_to_stay(Node.model_validate(race)).model_dump(mode="json")
    data = made_to_stay(Node.model_validate(code("a", node=lookalike)))

    x, y = told["config"]["flows"]["x"]["nodes"][0], told["config"]["flows"]["y"]["nodes"][0]
    assert (x["execution_mode"], x["config"]["node"]["execution_mode"]) == ("inline", "inline")
    assert (y["execution_mode"], y["config"]["execution_mode"]) == ("inline", "sandbox")  # the cap stays lifted
    assert data.config["node"] == lookalike


def test_a_node_type_tells_where_its_nodes_may_run() -> None:
    catalog = load_catalog()

    assert catalog["code.javascript"].as_json()["execution_modes"] == ["inline", "sandbox", "pod"]
    assert catalog["wait.approval"].as_json()["execution_modes"] == ["inline"]


def test_a_document_says_nothing_of_it_when_its_nodes_do_not() -> None:
    document, _ = read(flow(code("a"), node("b"), wires=(wire("a.output", "b.message"),)))

    assert "execution_mode" not in document.model_dump(mode="json", exclude_none=True)["nodes"][0]


def podded(raw: dict[str, Any], *, cluster: bool = True, **bounds: Any) -> Node:
    (found,) = with_pods(read(flow(raw))[0], SoloBounds(**bounds), cluster=cluster).nodes
    return found


def test_a_node_in_a_pod_is_told_what_it_has_when_it_does_not_say() -> None:
    said = {"memory_mb": 512, "cpus": 2.5, "timeout_ms": 1000}

    assert podded(http(execution_mode="pod")).resources == NodeResources(memory_mb=SoloBounds().memory_mb)
    assert podded(http(execution_mode="pod"), cpus=4.0).resources == NodeResources(
        memory_mb=SoloBounds().memory_mb, cpus=4.0
    )
    assert podded(http(execution_mode="pod", resources=said)).resources == NodeResources(**said)


@pytest.mark.parametrize("said", [{"execution_mode": "pod"}, {"config": {"execution_mode": "pod"}}])
def test_a_pod_is_one_where_there_is_a_cluster_and_else_a_sandbox(said: dict[str, Any]) -> None:
    assert podded(http(**said)).execution_mode == "pod"
    assert podded(http(**said), cluster=False).execution_mode == "sandbox"


def test_what_asks_for_more_than_it_may_is_left_to_the_sandboxes_that_refuse_it() -> None:
    much = http(execution_mode="pod", resources={"memory_mb": 1024})

    assert podded(much, memory_mb=512).execution_mode == "sandbox"


def test_what_answers_has_no_pod_as_its_run_would_give_only_the_answer() -> None:
    assert podded({**node("a", "respond"), "execution_mode": "pod"}).execution_mode == "sandbox"


def test_a_flow_without_pods_stays_as_it_is() -> None:
    document = read(flow(code("a"), http(id="b", execution_mode="sandbox")))[0]

    assert with_pods(document, SoloBounds(), cluster=True) is document
