"""Whether the parts of a document fit together: ids, types, configs, rules, and the flows that stand inside nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from schemas.catalog import Catalog
from schemas.draft import Draft, read_part
from schemas.flow import FlowDocument
from schemas.nodes.hub import PREFIX as HUB_PREFIX
from schemas.nodes.spec import NodeConfig, NodeType, PushLimits
from schemas.parking import parks_inside
from schemas.solo import is_alone, solo_refusals, without_cap
from schemas.wiring import check_connections, check_rings
from schemas.wording import listed, short

#: Most nodes that may run at the same time in the flows inside a node, over all levels of such nodes.
MAX_INNER_AT_ONCE: Final = 10_000


def check_meaning(draft: Draft, catalog: Catalog, limits: PushLimits) -> None:
    _check_ids(draft)
    types = _check_types(draft, catalog)
    configs = _check_configs(draft, types, catalog, limits)
    check_connections(draft, types, configs)
    _check_inputs(draft, types)
    _check_retries(draft, configs)
    _check_rules(draft)
    check_rings(draft)


def _check_ids(draft: Draft) -> None:
    seen: dict[str, int] = {}
    for index, node in draft.nodes.items():
        if node.id in seen:
            draft.wrong(
                f"nodes[{index}].id",
                f'id "{node.id}" is already used by nodes[{seen[node.id]}]',
                "give every node an id of its own",
            )
        seen.setdefault(node.id, index)


def _check_types(draft: Draft, catalog: Catalog) -> dict[int, NodeType]:
    """Find the type of each node, by its place in the document."""
    types: dict[int, NodeType] = {}
    for index, node in draft.nodes.items():
        node_type = catalog.get(node.node_type)
        path = f"nodes[{index}].node_type"
        if node_type is None and node.node_type.startswith(HUB_PREFIX):
            message, fix = catalog.hub.missing(node.node_type)
            draft.wrong(path, f'node "{node.id}": {message}', fix)
            continue
        if node_type is None:
            known = sorted(catalog)
            draft.wrong(
                path,
                f'node "{node.id}": unknown node type "{node.node_type}"; known: {listed(known)}',
                draft.suggest(node.node_type, known),
            )
            continue
        types[index] = node_type
        if catalog.mode not in node_type.modes:
            draft.wrong(
                path,
                f'node "{node.id}": {node.node_type} is not allowed in execution mode {catalog.mode}',
                f"run the worker with FLO_EXECUTION_MODE={' or '.join(sorted(node_type.modes))}",
            )
    return types


def _check_configs(
    draft: Draft, types: dict[int, NodeType], catalog: Catalog, limits: PushLimits
) -> dict[int, NodeConfig]:
    """Read each config, and the flows that stand inside it."""
    configs: dict[int, NodeConfig] = {}
    for index, node_type in types.items():
        node, path = draft.nodes[index], f"nodes[{index}].config"
        config = read_part(node_type.config, node.config, path, draft)
        if config is None:
            continue
        configs[index] = config
        for refusal in config.refusals(without_cap(limits) if is_alone(node, config) else limits):
            draft.wrong(f"{path}.{refusal.key}", f'node "{node.id}": {refusal.message}', refusal.fix)
        for refusal in solo_refusals(node, config, limits.solo):
            draft.wrong(f"nodes[{index}].{refusal.key}", f'node "{node.id}": {refusal.message}', refusal.fix)
        if draft.inside and (parking := parks_inside(node, config, path=f"nodes[{index}]")):
            draft.problems.append(parking)
        for place, inner in config.inner_flows().items():
            _check_inner(inner, f"{path}.{place}", draft, catalog, limits, at_once=config.inner_at_once())
    return configs


def _check_inner(
    document: FlowDocument, path: str, outer: Draft, catalog: Catalog, limits: PushLimits, *, at_once: int
) -> None:
    at_once *= outer.at_once
    nodes_at_once = at_once * min(document.settings.most_at_once, len(document.nodes))
    if nodes_at_once > MAX_INNER_AT_ONCE:
        outer.wrong(
            path,
            f"up to {nodes_at_once:,} nodes could run in here at the same time, but at most {MAX_INNER_AT_ONCE:,} may",
            "lower max_parallel, or settings.max_parallel_nodes of the flow inside",
        )
        return
    inner = Draft(
        at_once=at_once,
        inside=True,
        nodes=dict(enumerate(document.nodes)),
        connections=dict(enumerate(document.connections)),
        ids=[node.id for node in document.nodes],
    )
    check_meaning(inner, catalog, limits)
    short_form = path.endswith(".node")  # the config says `node`, and has no list of nodes
    for problem in inner.problems:
        if problem.severity == "error":
            place = problem.path.removeprefix("nodes[0]").lstrip(".") if short_form else problem.path
            outer.problems.append(replace(problem, path=f"{path}.{place}" if place else path))


def _check_retries(draft: Draft, configs: dict[int, NodeConfig]) -> None:
    """Find policies that wait for a status which the node, as it is configured, never fails with."""
    for index, config in configs.items():
        policy = draft.nodes[index].retry_policy
        marks = policy.retry_on or () if policy else ()
        by_status = [mark for mark in marks if isinstance(mark, int) or mark.endswith("xx")]
        if by_status and getattr(config, "fail_on_status", None) is False:
            draft.note(
                f"nodes[{index}].retry_policy.retry_on",
                f'node "{draft.nodes[index].id}" never fails with a status, so {short(by_status)} is never retried',
                "set config.fail_on_status: true",
            )


def _check_rules(draft: Draft) -> None:
    fed = {wire.to_node for wire in draft.connections.values()}
    for index, node in draft.nodes.items():
        if node.trigger_rule is not None and node.id not in fed:
            path = f"nodes[{index}].trigger_rule"
            draft.note(path, f'nothing feeds node "{node.id}", so it starts with the flow, whatever its rule')


def _check_inputs(draft: Draft, types: dict[int, NodeType]) -> None:
    """Find required ports without a value. A root's may come in the payload, which is worth a note."""
    fed = {(wire.to_node, wire.to_port) for wire in draft.connections.values()}
    reached = {wire.to_node for wire in draft.connections.values()}
    for index, node_type in types.items():
        node, path = draft.nodes[index], f"nodes[{index}]"
        fixed = node_type.fixed_inputs(node.config)
        for port in node_type.inputs:
            if not port.required or (node.id, port.name) in fed or port.name in fixed:
                continue
            if node.id in reached:
                draft.wrong(
                    path,
                    f'node "{node.id}": required input port "{port.name}" ({port.description}) gets no value',
                    f"connect something to it, or set config.{port.name}",
                )
            else:
                draft.note(path, f'node "{node.id}": input port "{port.name}" must come as a key of every payload')
