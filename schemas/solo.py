"""Nodes that run alone, each in a sandbox of its own: which they are, and what they may ask for. Pure.

A node says so beside its config (`execution_mode`), an `http.request` also in it; at push the two must agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import cast

from schemas.flow import FlowDocument, Node, NodePlace, NodeResources
from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import MOST_CPUS, NodeConfig, PushLimits, Refusal, SoloBounds
from schemas.settings import Settings

#: Node types whose config may hold flows.
_HOLDERS = frozenset({"flow.call", "flow.map", "flow.race"})


def place_of(node: Node, config: NodeConfig) -> NodePlace:
    """Tell where a node runs; what stands beside the config counts before what stands in it."""
    return node.execution_mode or config.place() or "inline"


def is_alone(node: Node, config: NodeConfig) -> bool:
    """Tell whether the node has a sandbox of its own."""
    return place_of(node, config) != "inline"


def bounds_of(settings: Settings) -> SoloBounds:
    """Give what the operator lets such a node ask for."""
    return SoloBounds(memory_mb=settings.solo_memory_mb, cpus=settings.solo_cpus or MOST_CPUS)


def without_cap(limits: PushLimits) -> PushLimits:
    """Give the limits on a node that takes no place from the runs of a worker."""
    return replace(limits, max_inline_http=timedelta.max)


def solo_refusals(node: Node, config: NodeConfig, bounds: SoloBounds) -> Iterator[Refusal]:
    """List what is wrong with what a node says of its sandbox; keys are those of the node."""
    beside, within = node.execution_mode, config.place()
    if beside is not None and within is not None and beside != within:
        yield Refusal(
            key="execution_mode",
            message=f'execution_mode is "{beside}" here and "{within}" in config',
            fix="keep one of them",
        )
        return
    place = place_of(node, config)
    if place == "inline" and node.resources is not None:
        yield Refusal(
            key="resources",
            message="resources are those of a node's own sandbox, and this node runs inline",
            fix='set execution_mode: "sandbox", or remove resources',
        )
    if place != "inline" and (why := config.why_not_alone()):
        yield Refusal(
            key="execution_mode",
            message=f'execution_mode is "{place}", but a {node.node_type} can\'t run alone: {why}',
            fix='set execution_mode: "inline"',
        )
    yield from beyond(node, bounds)
    if node.resources is not None and node.resources.timeout_ms is not None and config.limit is not None:
        yield Refusal(
            key="resources.timeout_ms",
            message="resources.timeout_ms and the time-out in config both say how long",
            fix="keep one of them",
        )


def beyond(node: Node, bounds: SoloBounds) -> Iterator[Refusal]:
    """List what is more than the operator allows: at push, and at the start, as bounds may have changed since."""
    asked = node.resources
    if asked is None:
        return
    for key, given, most, setting in (
        ("memory_mb", asked.memory_mb, bounds.memory_mb, "FLO_SOLO_MEMORY_MB"),
        ("cpus", asked.cpus, bounds.cpus, "FLO_SOLO_CPUS"),
    ):
        if given is not None and given > most:
            yield Refusal(
                key=f"resources.{key}",
                message=f"{key} is {given:g}, but a node that runs alone may have at most {most:g} here",
                fix=f"ask for {most:g} or less, or have the operator raise {setting}",
            )


def with_pods(document: FlowDocument, bounds: SoloBounds, *, cluster: bool) -> FlowDocument:
    """Say of each node in a pod what it has of a machine; without a cluster, that it has a sandbox here instead.

    One that asks for more than it may is left to the worker, whose sandboxes refuse it; so is a `respond`, as what it
    answers is not all that it gives.
    """
    if not any(_says_pod(node) for node in document.nodes):
        return document
    nodes = tuple(_with_pod(node, bounds, cluster=cluster) if _says_pod(node) else node for node in document.nodes)
    return document.model_copy(update={"nodes": nodes})


def _says_pod(node: Node) -> bool:
    within = node.config.get("execution_mode") if node.node_type == "http.request" else None
    return (node.execution_mode or within) == "pod"


def _with_pod(node: Node, bounds: SoloBounds, *, cluster: bool) -> Node:
    in_pod = cluster and node.node_type != "respond" and not any(beyond(node, bounds))
    asked = node.resources or NodeResources()
    cpus = asked.cpus or (bounds.cpus if bounds.cpus < MOST_CPUS else None)
    has = asked.model_copy(update={"memory_mb": asked.memory_mb or bounds.memory_mb, "cpus": cpus})
    return node.model_copy(update={"execution_mode": "pod" if in_pod else "sandbox", "resources": has})


def made_to_stay(node: Node) -> Node:
    """Give the same node as it is told inside its sandbox: here it runs, and so does all that stands inside it.

    What is around its tries stays outside. Its time-out goes where the node itself looks for one.
    """
    config = cast(JSONObject, _stays(node.model_dump(mode="json"))["config"])
    if node.resources is not None and node.resources.timeout_ms is not None:
        config = {**config, "timeout_ms": node.resources.timeout_ms}
    return Node(id=node.id, node_type=node.node_type, config=config, execution_mode="inline", resources=node.resources)


def _stays(node: JSONObject) -> JSONObject:
    """Mark a node, and the nodes of the flows inside it (`flow.map`, `flow.race`, a linked `flow.call`)."""
    node_type, config = node["node_type"], cast(JSONObject, node.get("config") or {})
    if node_type in _HOLDERS:
        config = {key: _inside(key, value) for key, value in config.items()}
    place = node.get("execution_mode") or config.get("execution_mode") or "inline"
    if node_type == "http.request" and place != "inline":
        config = {**config, "execution_mode": "sandbox"}  # the cap stays lifted
    return {**node, "config": config, "execution_mode": "inline", "resources": None}


def _inside(key: str, value: JSONValue) -> JSONValue:
    match key, value:
        case "node", dict():
            return _stays(value)
        case (("flow" | "document"), dict()):
            return {
                **value,
                "nodes": [_stays(cast(JSONObject, node)) for node in cast(list[JSONValue], value["nodes"])],
            }
        case "flows", dict():
            return {name: _inside("flow", flow) for name, flow in value.items()}
    return value
