"""The suite for authors: it passes for a sound node type, and fails for each way to be unsound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from shout import Shout

from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import Port
from workers.nodes.node import NodeCall
from workers.testing import NodeContract


class TestShout(NodeContract):
    node = Shout
    inputs: ClassVar[JSONObject] = {"text": "hello"}


class Undescribed(Shout):
    spec: ClassVar = replace(Shout.spec, outputs=(Port(name="loud", description=""),))


class WrongExample(Shout):
    spec: ClassVar = replace(Shout.spec, example={"marks": 99})


class GivesASet(Shout):
    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"loud": ("not", "json")}  # type: ignore[dict-item]


class GivesAnotherPort(Shout):
    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"quiet": "x"}


class GivesAnotherType(Shout):
    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"loud": 3}


class KeepsSomething(Shout):
    busy = False

    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        assert not self.busy
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        return {"loud": "x"}


CONTRACT = NodeContract


@pytest.mark.parametrize(
    ("unsound", "test"),
    [
        (Undescribed, CONTRACT.test_its_description_is_whole),
        (WrongExample, CONTRACT.test_its_example_is_a_valid_config),
        (GivesASet, CONTRACT.test_what_it_gives_is_json_and_fits_its_output_ports),
        (GivesAnotherPort, CONTRACT.test_what_it_gives_is_json_and_fits_its_output_ports),
        (GivesAnotherType, CONTRACT.test_what_it_gives_is_json_and_fits_its_output_ports),
        (KeepsSomething, CONTRACT.test_one_object_serves_many_runs_at_once),
    ],
)
def test_the_suite_finds_what_is_unsound(unsound: type[Any], test: Callable[[NodeContract], None]) -> None:
    suite = type("Suite", (NodeContract,), {"node": unsound, "inputs": {"text": "hello"}})()

    with pytest.raises((AssertionError, ValueError, TypeError)):
        test(suite)
