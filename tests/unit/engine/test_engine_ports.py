"""How values find their ports."""

from __future__ import annotations

import pytest
from simulated_run import acyclic_document

from schemas.json import JSONValue
from schemas.nodes.code import CODE_JAVASCRIPT
from schemas.nodes.debug import DEBUG_LOG
from schemas.nodes.http import HTTP_REQUEST
from schemas.outcome import ErrorKind
from workers.engine.graph import Wire, graph_of
from workers.engine.ports import check_inputs, result_of, root_inputs, wired_inputs
from workers.nodes.node import NodeError


def test_a_code_root_gets_each_key_of_the_payload_and_the_whole() -> None:
    assert root_inputs(CODE_JAVASCRIPT, {}, {"a": 1}) == {"a": 1, "payload": {"a": 1}}


def test_the_whole_payload_wins_over_a_key_of_that_name() -> None:
    assert root_inputs(CODE_JAVASCRIPT, {}, {"payload": 1}) == {"payload": {"payload": 1}}


@pytest.mark.parametrize("payload", [None, 3, "x", [1]])
def test_a_payload_without_keys_is_only_a_whole(payload: JSONValue) -> None:
    assert root_inputs(CODE_JAVASCRIPT, {}, payload) == {"payload": payload}


def test_a_root_with_fixed_ports_gets_only_those() -> None:
    assert root_inputs(DEBUG_LOG, {}, {"message": 1, "other": 2}) == {"message": 1}


def test_the_config_of_a_root_wins_over_the_payload() -> None:
    given = {"url": "http://public", "body": "x"}

    assert root_inputs(HTTP_REQUEST, {"url": "http://fixed"}, given) == {"url": "http://fixed", "body": "x"}


def test_a_connection_wins_over_the_config() -> None:
    assert wired_inputs([Wire(0, "a", "url")], {"url": "http://fixed"}, {0: {"a": "http://b"}}) == {"url": "http://b"}


def test_a_port_that_gave_nothing_brings_nothing() -> None:
    assert wired_inputs([Wire(0, "a", "x"), Wire(0, "b", "y")], {}, {0: {"b": None}}) == {"y": None}


def test_a_missing_required_input_is_named() -> None:
    with pytest.raises(NodeError, match='missing required input "url"') as refused:
        check_inputs(HTTP_REQUEST, {})

    assert refused.value.error.kind is ErrorKind.INVALID_INPUT


def test_an_input_of_the_wrong_type_is_shown() -> None:
    with pytest.raises(NodeError, match='input "url" must be of type string; given integer: 3'):
        check_inputs(HTTP_REQUEST, {"url": 3})


def test_the_result_is_what_respond_answered_wherever_it_stands() -> None:
    graph = graph_of(acyclic_document(3, [(0, 1), (0, 2)]))

    result = result_of(graph, ["a", "b", "c"], ["x", "respond", "x"], {0: {}, 1: {"value": 7}, 2: {"z": 1}})

    assert result == 7


def test_of_two_answers_the_one_that_stands_first_counts() -> None:
    graph = graph_of(acyclic_document(2, []))

    assert result_of(graph, ["a", "b"], ["respond", "respond"], {1: {"value": 2}, 0: {"value": 1}}) == 1


def test_without_respond_the_result_is_the_only_leafs_outputs() -> None:
    graph = graph_of(acyclic_document(2, [(0, 1)]))

    assert result_of(graph, ["a", "b"], ["x", "x"], {0: {"a": 1}, 1: {"output": 1}}) == {"output": 1}


def test_of_several_leaves_the_result_has_each_under_its_id() -> None:
    graph = graph_of(acyclic_document(3, [(0, 1), (0, 2)]))

    assert result_of(graph, ["a", "b", "c"], ["x"] * 3, {0: {}, 1: {"p": 1}, 2: {}}) == {"b": {"p": 1}, "c": {}}
