"""Every mistake in a flow document is reported with its place, what was given, what is allowed and the fix."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from document_maker import CAP, code, flow, mistakes_in, node, read, wire

from schemas.catalog import Catalog
from schemas.errors import Invalid
from schemas.nodes.spec import NodeType
from schemas.settings import ExecutionMode
from schemas.validation import MAX_CONFIG_BYTES, MAX_MISTAKES, read_document


@pytest.mark.parametrize("raw", [None, [], "flow", 3, True])
def test_what_is_no_object_is_no_document(raw: object) -> None:
    assert "must be a JSON object; given" in mistakes_in(raw)["$"]


def test_a_flow_without_nodes_is_refused_with_an_example() -> None:
    assert "the flow has no nodes | add one, e.g." in mistakes_in(flow())["nodes"]


def test_missing_parts_are_named() -> None:
    found = mistakes_in({"nodes": [{"id": "a"}]})

    assert found["name"] == '"name" is missing | add "name"'
    assert found["nodes[0].node_type"] == '"node_type" is missing | add "node_type"'


def test_an_unknown_key_lists_the_known_ones_and_suggests_one() -> None:
    found = mistakes_in(flow(node("a", retry_policy={"max_atempts": 3})))

    message = found["nodes[0].retry_policy.max_atempts"]
    assert 'unknown key "max_atempts"; allowed: backoff_multiplier, delay_ms' in message
    assert message.endswith('did you mean "max_attempts"?')


def test_an_unknown_node_type_lists_the_known_ones_and_suggests_one() -> None:
    message = mistakes_in(flow(node("a", "code.javscript")))["nodes[0].node_type"]

    assert 'unknown node type "code.javscript"; known: browser.render, code.javascript, code.' in message
    assert message.endswith('did you mean "code.javascript"?')


def test_a_node_type_that_the_mode_does_not_allow_names_the_modes_that_do() -> None:
    shell = NodeType(
        type="shell.exec",
        category="shell",
        description="",
        example={},
        modes=frozenset({ExecutionMode.SANDBOX_PROCESS, ExecutionMode.UNSANDBOXED}),
    )
    catalog = Catalog([shell], mode=ExecutionMode.SANDBOX_CODE_ONLY)

    with pytest.raises(Invalid) as refused:
        read_document(flow(node("a", "shell.exec")), catalog=catalog, max_inline_http=CAP)

    (problem,) = refused.value.problems
    assert "not allowed in execution mode SANDBOX_CODE_ONLY" in problem.message
    assert problem.fix == "run the worker with FLO_EXECUTION_MODE=SANDBOX_PROCESS or UNSANDBOXED"


def test_two_nodes_with_one_id_are_refused() -> None:
    message = mistakes_in(flow(node("a"), node("a")))["nodes[1].id"]

    assert 'id "a" is already used by nodes[0] | give every node an id of its own' in message


def test_a_ring_is_named_node_by_node() -> None:
    raw = flow(
        code("a"), code("b"), code("c"), code("d"),
        wires=(wire("a.output", "b.x"), wire("b.output", "c.x"), wire("c.output", "a.x"), wire("c.output", "d.x")),
    )  # fmt: skip

    assert "the connections form a ring: a → b → c → a" in mistakes_in(raw)["connections"]


def test_a_node_that_feeds_itself_is_a_ring() -> None:
    raw = flow(code("a"), wires=(wire("a.output", "a.x"),))

    assert "form a ring: a → a" in mistakes_in(raw)["connections"]


def test_two_ways_to_one_node_are_no_ring() -> None:
    raw = flow(
        code("a"), code("b"), code("c"), code("d"),
        wires=(wire("a.output", "b.x"), wire("a.output", "c.x"), wire("b.output", "d.x"), wire("c.output", "d.y")),
    )  # fmt: skip

    document, _ = read(raw)

    assert len(document.connections) == 4


def test_a_connection_to_no_node_suggests_the_one_that_was_meant() -> None:
    raw = flow(code("greet"), node("say"), wires=(wire("greeet.output", "say.message"),))

    message = mistakes_in(raw)["connections[0].from_node"]

    assert message == 'no node has the id "greeet" | did you mean "greet"?'


def test_a_connection_to_no_port_suggests_the_one_that_was_meant() -> None:
    raw = flow(
        node("get", "http.request", config={"url": "http://x"}), node("say"), wires=(wire("get.bdy", "say.mesage"),)
    )

    found = mistakes_in(raw)

    assert 'node "get" has no output port "bdy"; it has: status, body' in found["connections[0].from_port"]
    assert 'node "say" has no input port "mesage"; it has: message' in found["connections[0].to_port"]
    assert 'did you mean "message"?' in found["connections[0].to_port"]


def test_an_input_port_is_fed_once() -> None:
    raw = flow(code("a"), code("b"), node("say"), wires=(wire("a.x", "say.message"), wire("b.x", "say.message")))

    assert "already fed by connections[0]" in mistakes_in(raw)["connections[1].to_port"]


def test_a_required_input_that_nothing_gives_is_named() -> None:
    raw = flow(code("a"), node("get", "http.request"), wires=(wire("a.output", "get.body"),))

    message = mistakes_in(raw)["nodes[1]"]

    assert 'node "get": required input port "url" (http or https address) gets no value' in message
    assert message.endswith("connect something to it, or set config.url")


def test_a_required_input_may_stand_in_the_config() -> None:
    raw = flow(
        code("a"),
        node("get", "http.request", config={"url": "http://x", "method": "POST"}),
        wires=(wire("a.output", "get.body"),),
    )

    assert read(raw)[1] == ()


def test_a_required_input_of_a_root_may_come_in_the_payload_which_is_noted() -> None:
    _, (note,) = read(flow(node("get", "http.request")))

    assert note.severity == "note"
    assert note.message == 'node "get": input port "url" must come as a key of every payload'


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        ({}, "code", '"code" is missing'),
        ({"code": ""}, "code", "must not be empty"),
        ({"code": 3}, "code", "must be a string; given 3"),
        ({"code": "x", "memory_mb": "64"}, "memory_mb", 'must be a whole number; given "64"'),
        ({"code": "x", "memory_mb": 4}, "memory_mb", "must be at least 8; given 4"),
        ({"code": "x", "timeout_ms": True}, "timeout_ms", "must be a whole number; given true"),
        ({"code": "x", "timeout_ms": 0}, "timeout_ms", "must be at least 1; given 0"),
        ({"code": "x", "memry_mb": 64}, "memry_mb", 'did you mean "memory_mb"?'),
    ],
)
def test_a_wrong_config_says_what_is_allowed(config: dict[str, object], path: str, message: str) -> None:
    found = mistakes_in(flow(node("a", "code.javascript", config=config)))

    assert message in found[f"nodes[0].config.{path}"]


def test_two_words_for_one_limit_are_refused() -> None:
    message = mistakes_in(flow(code("a", timeout=1, timeout_ms=1000)))["nodes[0].config"]

    assert "timeout (seconds) and timeout_ms (milliseconds) both say how long; keep one" in message


@pytest.mark.parametrize("limit", [{"timeout_ms": 600_000}, {"timeout": 600}])
def test_an_inline_http_node_may_not_take_longer_than_the_operator_allows(limit: dict[str, int]) -> None:
    found = mistakes_in(flow(node("fetch", "http.request", config={"url": "http://x", **limit})))

    assert found[f"nodes[0].config.{next(iter(limit))}"] == (
        'node "fetch": timeout is 600 s, but inline HTTP nodes are capped at 300 s here'
        ' | set execution_mode: "sandbox" to lift the cap'
    )


def test_a_sandboxed_http_node_has_no_cap() -> None:
    config = {"url": "http://x", "timeout_ms": 600_000, "execution_mode": "sandbox"}

    document, _ = read(flow(node("fetch", "http.request", config=config)))

    assert document.nodes[0].config == config


def test_a_get_request_carries_no_body() -> None:
    found = mistakes_in(flow(node("a", "http.request", config={"url": "http://x", "json": {}})))

    assert 'a GET request carries no body; set method: "POST"' in found["nodes[0].config"]


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ([], "settings", "must be an object; given []"),
        ({"max_parallel_nodes": 0}, "settings.max_parallel_nodes", "must be at least 1; given 0"),
        ({"max_parallel_nodes": 50_000}, "settings.max_parallel_nodes", "must be at most 10000; given 50000"),
        ({"max_execution_time_ms": -1}, "settings.max_execution_time_ms", "must be at least 1; given -1"),
        ({"on_error": "Stop"}, "settings.on_error", 'must be "StopWorkflow", "ContinueOnError" or'),
        ({"on_error": "RetryWorkflow"}, "settings.on_error", '{"RetryWorkflow": {"max_attempts": 1 to 100}}'),
        ({"on_error": {"RetryWorkflow": {"max_attempts": 0}}}, "settings.on_error", "1 to 100"),
        ({"speed": 1}, "settings.speed", "allowed: max_execution_time_ms, max_parallel_nodes, on_error, resources"),
        ({"strategy": "paralel"}, "settings.strategy", 'did you mean "parallel"?'),
    ],
)
def test_wrong_settings_say_what_is_allowed(settings: object, path: str, message: str) -> None:
    assert message in mistakes_in(flow(node("a"), settings=settings))[path]


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ({"trigger_rule": "all_sucess"}, "trigger_rule", 'did you mean "all_success"?'),
        (
            {"retry_policy": {"retry_on": [99]}},
            "retry_policy.retry_on[0]",
            "must be an HTTP status (100 to 599) or one",
        ),
        ({"retry_policy": {"retry_on": ["6xx"]}}, "retry_policy.retry_on[0]", "4xx, 5xx, user_error"),
        ({"circuit_breaker": {"open_ms": 0}}, "circuit_breaker.open_ms", "must be at least 1; given 0"),
        ({"bulkhead": {"max_concurrent": 1}}, "bulkhead.key", '"key" is missing'),
        (
            {"bulkhead": {"key": "x", "max_concurrent": 1, "when_full": "drop"}},
            "bulkhead.when_full",
            "'wait' or 'fail'",
        ),
        ({"cache": {}}, "cache.ttl_ms", '"ttl_ms" is missing'),
        ({"cache": {"ttl_ms": 1, "key": "a +"}}, "cache.key", "not an expression: invalid syntax"),
    ],
)
def test_a_wrong_rule_around_a_node_says_what_is_allowed(more: dict[str, object], path: str, message: str) -> None:
    assert message in mistakes_in(flow(node("a", **more)))[f"nodes[0].{path}"]


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        ({}, "", 'say either "if" (branches true and false) or "cases"'),
        ({"if": "a >"}, ".if", "not an expression"),
        ({"cases": [{"port": "x"}]}, ".cases[0]", 'a case needs either "if" (an expression) or "equals" (a value)'),
        ({"cases": [{"port": "x", "equals": 1}]}, "", 'a case with "equals" needs "on"'),
        ({"cases": [{"port": "else", "if": "a"}]}, "", 'the branch "else" is named twice'),
        ({"cases": [{"port": "taken", "if": "a"}]}, "", 'the branch "taken" is named twice, or is a name that every'),
    ],
)
def test_a_wrong_branch_says_what_is_missing(config: dict[str, object], path: str, message: str) -> None:
    assert message in mistakes_in(flow(node("a", "flow.branch", config=config)))[f"nodes[0].config{path}"]


def test_a_connection_from_a_branch_that_does_not_exist_suggests_the_one_that_was_meant() -> None:
    raw = flow(
        node("pick", "flow.branch", config={"if": "n > 1"}), node("say"), wires=(wire("pick.ture", "say.message"),)
    )

    message = mistakes_in(raw)["connections[0].from_port"]

    assert message == 'node "pick" has no output port "ture"; it has: true, false, taken | did you mean "true"?'


def test_mistakes_inside_a_map_or_a_race_are_reported_with_their_whole_path() -> None:
    inner = {"nodes": [node("x", "no.such"), code("x", memory_mb=1)]}
    raw = flow(
        node("each", "flow.map", config={"items": [1], "node": {"node_type": "code.javascript", "config": {"cod": 1}}}),
        node("race", "flow.race", config={"flows": {"a": inner, "b": {"nodes": [node("y")]}}}),
    )

    assert set(mistakes_in(raw)) == {
        "nodes[0].config.node.config.code",
        "nodes[0].config.node.config.cod",
        "nodes[1].config.flows.a.nodes[0].node_type",
        "nodes[1].config.flows.a.nodes[1].id",
        "nodes[1].config.flows.a.nodes[1].config.memory_mb",
    }


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (node("it", "wait.webhook"), "wait.webhook parks its run"),
        (node("it", "wait.approval"), "wait.approval parks its run"),
        (node("it", "wait.url"), "wait.url parks its run"),
        (node("it", "time.delay", config={"delay_ms": 60_001}), "make it 60,000 ms or less"),
        (node("it", "flow.call", config={"flow": "other", "mode": "run"}), 'set mode: "inline"'),
    ],
)
def test_what_parks_its_run_is_refused_inside_a_map_or_a_race_with_its_path(inner: dict[str, Any], said: str) -> None:
    short = {key: inner[key] for key in ("node_type", "config")}
    race = {"flows": {"one": {"nodes": [node("a"), inner]}, "two": {"nodes": [node("b")]}}}
    deep = node("race", "flow.race", config=race)
    raw = flow(
        node("each", "flow.map", config={"items": [1], "node": short}),
        node("race", "flow.race", config=race),
        node("deep", "flow.map", config={"items": [1], "flow": {"nodes": [deep]}}),
    )

    found = mistakes_in(raw)

    assert list(found) == [
        "nodes[0].config.node",
        "nodes[1].config.flows.one.nodes[1]",
        "nodes[2].config.flow.nodes[0].config.flows.one.nodes[1]",
    ]
    assert all(said in message and "move it out" in message for message in found.values())


def test_short_delays_and_inline_calls_may_stand_inside_and_all_that_parks_outside() -> None:
    inner = {
        "nodes": [
            node("rest", "time.delay", config={"delay_ms": 60_000}),
            node("call", "flow.call", config={"flow": "a"}),
        ]
    }
    raw = flow(
        node("each", "flow.map", config={"items": [1], "flow": inner}),
        node("rest", "time.delay", config={"delay_ms": 60_001}),
        node("ok", "wait.approval"),
    )

    assert len(read(raw)[0].nodes) == 3


def test_maps_in_maps_may_not_run_more_nodes_at_once_than_any_flow() -> None:
    inner = {
        "nodes": [
            node("each", "flow.map", config={"items": [1], "node": {"node_type": "debug.log"}, "max_parallel": 101})
        ]
    }

    found = mistakes_in(flow(node("each", "flow.map", config={"items": [1], "flow": inner, "max_parallel": 100})))

    message = found["nodes[0].config.flow.nodes[0].config.node"]
    assert "up to 10,100 nodes could run in here at the same time, but at most 10,000 may" in message


def test_a_ring_inside_a_map_is_found() -> None:
    inner = {"nodes": [code("a"), code("b")], "connections": [wire("a.x", "b.x"), wire("b.x", "a.x")]}

    found = mistakes_in(flow(node("each", "flow.map", config={"items": [1], "flow": inner})))

    assert "the connections form a ring: a → b → a" in found["nodes[0].config.flow.connections"]


def test_a_port_may_be_fed_twice_when_the_node_starts_without_some_of_what_feeds_it() -> None:
    raw = flow(
        code("a"), code("b"), node("say", trigger_rule="one_success"),
        wires=(wire("a.x", "say.message"), wire("b.x", "say.message")),
    )  # fmt: skip

    assert len(read(raw)[0].connections) == 2


def test_the_error_of_a_node_is_only_for_those_who_start_when_it_has_failed() -> None:
    raw = flow(node("a"), node("say"), wires=(wire("a.error", "say.message"),))

    assert mistakes_in(raw)["connections[0]"] == (
        'port "error" of node "a" has a value only when that node has failed, and then node "say" does not start'
        ' | give node "say" a trigger_rule: all_done, all_failed, one_failed'
    )


def test_what_a_connection_or_a_rule_does_not_do_is_noted() -> None:
    raw = flow(
        code(
            "a",
        ),
        node("b", trigger_rule="all_done"),
        node("say"),
        wires=(wire("a.error", "say.message"),),
    )

    rule, error = sorted(read(raw)[1], key=lambda note: note.path, reverse=True)

    assert (rule.path, rule.message) == (
        "nodes[1].trigger_rule", 'nothing feeds node "b", so it starts with the flow, whatever its rule',
    )  # fmt: skip
    assert (error.path, error.fix) == (
        "connections[0]", "give it a trigger_rule, if it is to start then: all_done, all_failed, one_failed",
    )  # fmt: skip


def test_a_status_that_a_node_never_fails_with_is_noted() -> None:
    raw = flow(
        node(
            "a",
            "http.request",
            config={"url": "http://x"},
            retry_policy={"retry_on": ["5xx"], "retry_on_timeout": False},
        )
    )

    (note,) = read(raw)[1]

    assert (note.path, note.fix) == ("nodes[0].retry_policy.retry_on", "set config.fail_on_status: true")


def test_a_template_with_a_mistake_names_its_place() -> None:
    found = mistakes_in(flow(node("a", "transform.map", config={"map": {"user": {"name": "first +"}}})))

    assert "map.user.name: not an expression" in found["nodes[0].config.map"]


def test_an_editors_schema_key_says_nothing_about_the_flow() -> None:
    assert read({"$schema": "https://flo/schema.json", **flow(node("a"))})[0] == read(flow(node("a")))[0]


def test_a_config_that_is_too_big_says_how_big_it_may_be() -> None:
    found = mistakes_in(flow(node("a", config={"message": "x" * MAX_CONFIG_BYTES})))

    assert "bytes, but at most 1,048,576 are allowed" in found["nodes[0].config"]


def test_bottomless_nesting_is_refused() -> None:
    deep = reduce(lambda inner, _: {"a": inner}, range(150), {"a": 1})

    assert "nested deeper than 100 levels" in mistakes_in(flow(node("a", config=deep)))["$"]


def test_all_mistakes_are_reported_at_once() -> None:
    raw = flow(
        node("a", "no.such"), code("b", memory_mb=1), code("b"), 5,
        wires=(wire("b.x", "zz.y"),),
        settings={"on_error": "Stop"},
    )  # fmt: skip

    assert set(mistakes_in(raw)) == {
        "nodes[0].node_type",
        "nodes[1].config.memory_mb",
        "nodes[2].id",
        "nodes[3]",
        "connections[0].to_node",
        "settings.on_error",
    }


def test_a_node_that_is_wrong_in_itself_is_still_there_for_its_connections() -> None:
    raw = flow(node("a", retry_policy=3), node("say"), wires=(wire("a.message", "say.message"),))

    assert set(mistakes_in(raw)) == {"nodes[0].retry_policy"}


def test_thousands_of_mistakes_are_counted_not_listed() -> None:
    raw = flow(*(node(f"n{number}", "no.such") for number in range(MAX_MISTAKES + 7)))

    assert mistakes_in(raw)["$"] == "and 7 more mistakes | "
