"""flow.branch: the node type that chooses which way a flow goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from schemas.flow import Expression, Name, Part
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port

#: The output port that always has a value: the name of the branch that was taken.
TAKEN = "taken"


class Case(Part):
    """One way to go on, taken when its condition holds, or when the value of `on` equals its own."""

    port: Name
    condition: Expression | None = Field(default=None, alias="if", description="an expression over the inputs")
    equals: JSONValue = Field(default=None, description="what the value of `on` must be")

    @model_validator(mode="after")
    def _one_question(self) -> Case:
        if (self.condition is None) is ("equals" not in self.model_fields_set):
            raise ValueError('a case needs either "if" (an expression) or "equals" (a value)')
        return self


class BranchConfig(NodeConfig):
    condition: Expression | None = Field(
        default=None, alias="if", description="an expression over the inputs; the branches are true and false"
    )
    on: Expression | None = Field(default=None, description="the value that the cases' equals is compared with")
    cases: tuple[Case, ...] = Field(default=(), max_length=100, description="the first that holds is taken")
    otherwise: Name = Field(default="else", alias="else", description="the branch when no case holds")

    @model_validator(mode="after")
    def _consistent(self) -> BranchConfig:
        if (self.condition is not None) is bool(self.cases):
            raise ValueError('say either "if" (branches true and false) or "cases" (branches of your own)')
        for mistake in self._mistakes():
            raise ValueError(mistake)
        return self

    def _mistakes(self) -> Iterator[str]:
        by_value = any(case.condition is None for case in self.cases)
        if by_value and self.on is None:
            yield 'a case with "equals" needs "on", the expression whose value it is compared with'
        if self.on is not None and not by_value:
            yield '"on" is only for cases with "equals"'
        ports = self.more_outputs()
        twice = next((port for port in ports if ports.count(port) > 1 or port == TAKEN), None)
        if twice is not None:
            yield f'the branch "{twice}" is named twice, or is a name that every branch node has; choose another'

    def more_outputs(self) -> tuple[str, ...]:
        if self.condition is not None:
            return ("true", "false")
        return (*(case.port for case in self.cases), self.otherwise)


_EXAMPLE: dict[str, Any] = {
    "on": "order.country",
    "cases": [{"port": "near", "equals": "DE"}, {"port": "big", "if": "order.total > 1000"}],
    "else": "far",
}

FLOW_BRANCH = NodeType(
    type="flow.branch",
    category="control",
    description="Passes its data on to one of several output ports; what hangs on the others is skipped.",
    inputs=(Port(name="data", description="passed on; without it the payload (a root) or an object of all inputs"),),
    outputs=(Port(name=TAKEN, type="string", description="the name of the branch that was taken"),),
    open_inputs=True,
    config=BranchConfig,
    example=_EXAMPLE,
    branching=True,
)
