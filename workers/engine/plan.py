"""A document made ready to run: its graph, and for each node what does the work and with which config. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.errors import Invalid, Problem
from schemas.flow import FlowDocument
from schemas.json import JSONObject
from schemas.nodes.spec import NodeConfig, NodeType
from schemas.wording import problems_of
from workers.engine.graph import Graph, graph_of
from workers.engine.registry import Registry
from workers.nodes.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node, ready to run."""

    id: str
    type: NodeType
    work: Node[Any]
    config: NodeConfig
    #: Input ports whose value stands in the config.
    fixed: JSONObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    document: FlowDocument
    graph: Graph
    steps: Sequence[Step]


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
        steps.append(
            Step(
                id=node.id,
                type=known.type,
                work=known.work,
                config=config,
                fixed=known.type.fixed_inputs(node.config),
            )
        )
    if problems:
        raise Invalid(problems, what="flow document")
    return Plan(document=document, graph=graph_of(document), steps=steps)
