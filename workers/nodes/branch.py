"""flow.branch: choose which way the flow goes on."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.expression import ExpressionError, evaluate, same, truth
from schemas.json import JSONValue
from schemas.nodes.branch import TAKEN, BranchConfig
from schemas.outcome import ErrorKind
from workers.nodes.node import NodeCall, node_error


class Branch:
    """Pass `data` on to the port of the branch that is taken; without it, the payload (a root) or all inputs."""

    async def run(self, call: NodeCall[BranchConfig]) -> Mapping[str, JSONValue]:
        try:
            taken = _taken(call.config, call.inputs)
        except ExpressionError as mistake:
            raise node_error(ErrorKind.USER, str(mistake)) from None
        data = call.inputs["data"] if "data" in call.inputs else call.inputs.get("payload", dict(call.inputs))
        return {taken: data, TAKEN: taken}


def _taken(config: BranchConfig, inputs: Mapping[str, JSONValue]) -> str:
    if config.condition is not None:
        return "true" if truth(config.condition, inputs) else "false"
    value = evaluate(config.on, inputs) if config.on is not None else None
    for case in config.cases:
        if truth(case.condition, inputs) if case.condition is not None else same(value, case.equals):
            return case.port
    return config.otherwise
