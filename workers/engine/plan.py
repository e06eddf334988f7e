"""A document made ready to run: its graph, and for each node what does the work and with which config. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.errors import Invalid, Problem
from schemas.flow import FlowDocument, NodePlace
from schemas.flow import Node as DocumentNode
from schemas.json import JSONObject
from schemas.nodes.spec import NodeConfig, NodeType
from schemas.solo import place_of
from schemas.wording import problems_of
from workers.engine.alone import Alone
from workers.engine.graph import Graph, graph_of
from workers.engine.registry import Registry
from workers.nodes.node import Node

#: Plans that one engine keeps.
_KEPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node, ready to run."""

    id: str
    type: NodeType
    work: Node[Any]
    config: NodeConfig
    #: Input ports whose value stands in the config.
    fixed: JSONObject
    #: What the document says about the node: its retries, guards and cache.
    node: DocumentNode
    #: The flows that stand inside the config.
    inner: Mapping[str, Plan]
    #: Running it again may have an effect outside the run.
    has_effects: bool
    #: Where it runs. What does its work is, of a node that runs alone, `Alone`.
    place: NodePlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    document: FlowDocument
    graph: Graph
    steps: Sequence[Step]
    #: The nodes whose connections from an empty output port are not taken.
    branching: Set[int]
    #: Of each step.
    ids: Sequence[str]
    types: Sequence[str]


class Plans:
    """Plans of documents, which never change; those used last are kept."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: By the identity of the document, which the plan keeps alive.
        self._known: OrderedDict[int, Plan] = OrderedDict()

    def of(self, document: FlowDocument) -> Plan:
        """Raises Invalid as `plan_of` does."""
        key = id(document)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        plan = self._known[key] = plan_of(document, self._registry)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return plan


def plan_of(document: FlowDocument, registry: Registry) -> Plan:
    """Look up and parse everything once; raise Invalid for what this worker can't run.

    A document that was pushed is valid, but perhaps by the rules of another version of Flo.
    """
    problems: list[Problem] = []
    steps: list[Step] = []
    for index, node in enumerate(document.nodes):
        known = registry.get(node.node_type)
        if known is None:
            message = f'this worker does not know the node type "{node.node_type}"'
            problems.append(Problem(path=f"nodes[{index}].node_type", message=message, fix="update the worker"))
            continue
        try:
            config = known.type.config.model_validate(node.config)
        except ValidationError as mistakes:
            problems += problems_of(mistakes, path=f"nodes[{index}].config", model=known.type.config)
            continue
        inner = _inner(document.name, node, config, registry)
        place = place_of(node, config)
        steps.append(
            Step(
                id=node.id,
                type=known.type,
                work=known.work if place == "inline" else Alone(),
                config=config,
                fixed=known.type.fixed_inputs(node.config),
                node=node,
                inner=inner,
                has_effects=not known.type.repeatable
                or any(step.has_effects for plan in inner.values() for step in plan.steps),
                place=place,
            )
        )
    if problems:
        raise Invalid(problems, what="flow document")
    every = document.settings.strategy == "conditional"
    branching = {index for index, step in enumerate(steps) if every or step.type.branching}
    return Plan(
        document=document,
        graph=graph_of(document),
        steps=steps,
        branching=branching,
        ids=[step.id for step in steps],
        types=[step.type.type for step in steps],
    )


def _inner(flow: str, node: DocumentNode, config: NodeConfig, registry: Registry) -> Mapping[str, Plan]:
    """Make the flows ready that stand inside a config; each gets a name that tells where it stands."""
    return {
        place: plan_of(document.model_copy(update={"name": f"{flow}/{node.id}/{place}"}), registry)
        for place, document in config.inner_flows().items()
    }
