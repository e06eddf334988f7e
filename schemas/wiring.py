"""Whether the connections of a document lead from ports that are there to ports that are there, and in no ring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from schemas.draft import Draft
from schemas.flow import ERROR_PORT, TAKES_FAILURES, Connection, TriggerRule
from schemas.nodes.spec import NodeConfig, NodeType
from schemas.wording import listed

#: Rings named in one answer; breaking these usually breaks the rest.
MAX_RINGS: Final = 10


def check_connections(draft: Draft, types: dict[int, NodeType], configs: dict[int, NodeConfig]) -> None:
    ids = set(draft.ids)
    place_of = {draft.nodes[index].id: index for index in types}
    taken: dict[tuple[str, str], int] = {}
    for index, wire in draft.connections.items():
        path = f"connections[{index}]"
        for key, node_id in (("from_node", wire.from_node), ("to_node", wire.to_node)):
            if node_id not in ids:
                fix = draft.suggest(node_id, draft.ids) or _some(draft.ids)
                draft.wrong(f"{path}.{key}", f'no node has the id "{node_id}"', fix)

        source, target = place_of.get(wire.from_node), place_of.get(wire.to_node)
        rule = draft.nodes[target].trigger_rule if target is not None else None
        if source is not None:
            _check_from_port(draft, path, wire, source=types[source], config=configs.get(source), rule=rule)
        if target is not None and not types[target].open_inputs and types[target].input(wire.to_port) is None:
            names = [port.name for port in types[target].inputs]
            draft.wrong(
                f"{path}.to_port",
                f'node "{wire.to_node}" has no input port "{wire.to_port}"; it has: {listed(names)}',
                draft.suggest(wire.to_port, names),
            )

        end = (wire.to_node, wire.to_port)
        if end in taken and rule in (None, "all_success"):
            draft.wrong(
                f"{path}.to_port",
                f'input port "{wire.to_port}" of node "{wire.to_node}" is already fed by connections[{taken[end]}]',
                "connect it once, merge the values in a code node first, or, where only one of them will bring a "
                'value, give the node a trigger_rule such as "one_success"',
            )
        taken.setdefault(end, index)


def _check_from_port(
    draft: Draft, path: str, wire: Connection, *, source: NodeType, config: NodeConfig | None, rule: TriggerRule | None
) -> None:
    if source.open_outputs and wire.from_port == ERROR_PORT and rule not in TAKES_FAILURES:
        draft.note(
            path,
            f'taken for a port of its own: when node "{wire.from_node}" fails, node "{wire.to_node}" does not start',
            f"give it a trigger_rule, if it is to start then: {listed(sorted(map(str, TAKES_FAILURES)))}",
        )
    if source.open_outputs or source.output(wire.from_port) is not None or config is None:
        return
    if wire.from_port == ERROR_PORT:
        if rule not in TAKES_FAILURES:
            draft.wrong(
                path,
                f'port "{ERROR_PORT}" of node "{wire.from_node}" has a value only when that node has failed, and then '
                f'node "{wire.to_node}" does not start',
                f'give node "{wire.to_node}" a trigger_rule: {listed(sorted(map(str, TAKES_FAILURES)))}',
            )
        return
    names = [*config.more_outputs(), *(port.name for port in source.outputs)]
    if wire.from_port not in names:
        draft.wrong(
            f"{path}.from_port",
            f'node "{wire.from_node}" has no output port "{wire.from_port}"; it has: {listed(names)}',
            draft.suggest(wire.from_port, names),
        )


def _some(ids: Sequence[str]) -> str:
    """Name what exists, as far as that helps."""
    return f"the flow has: {listed(ids[:10])}{', …' if len(ids) > 10 else ''}"


def check_rings(draft: Draft) -> None:
    for count, ring in enumerate(_rings(draft)):
        if count == MAX_RINGS:
            draft.wrong("connections", "there are more rings than the ones named here")
            return
        draft.wrong(
            "connections",
            f"the connections form a ring: {_around(ring)}",
            "remove one of these connections; a flow runs from its roots to its leaves",
        )


def _around(ring: Sequence[str]) -> str:
    shown = [*ring[:10], f"… {len(ring) - 20} more …", *ring[-10:]] if len(ring) > 25 else ring
    return " → ".join([*shown, ring[0]])


def _rings(draft: Draft) -> Iterator[list[str]]:
    """Walk depth first (without recursion, as chains may be long); each step back onto the trail closes a ring."""
    after: dict[str, list[str]] = {node_id: [] for node_id in draft.ids}
    for wire in draft.connections.values():
        if wire.from_node in after and wire.to_node in after:
            after[wire.from_node].append(wire.to_node)
    done: set[str] = set()
    for start in draft.ids:
        if start in done:
            continue
        trail = {start: iter(dict.fromkeys(after[start]))}
        while trail:
            here = next(reversed(trail))
            step = next(trail[here], None)
            if step is None:
                del trail[here]
                done.add(here)
            elif step in trail:
                names = list(trail)
                yield names[names.index(step) :]
            elif step not in done:
                trail[step] = iter(dict.fromkeys(after[step]))
