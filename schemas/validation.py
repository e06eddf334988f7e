"""Reads a flow document: finds every mistake at once, each with its place and its fix, or gives the canonical form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.catalog import Catalog
from schemas.errors import Invalid, Problem
from schemas.flow import ERROR_PORT, TAKES_FAILURES, Connection, FlowDocument, Node, TriggerRule
from schemas.json import dumps
from schemas.nodes.hub import PREFIX as HUB_PREFIX
from schemas.nodes.spec import NodeConfig, NodeType, PushLimits
from schemas.typed import is_typed_form, plain_config
from schemas.wording import did_you_mean, listed, problems_of, short

#: Largest config of one node, in bytes of JSON; bigger data belongs in the payload or behind a URL.
MAX_CONFIG_BYTES: Final = 1024 * 1024
#: Most nodes in one flow.
MAX_NODES: Final = 50_000
#: Most nodes that may run at the same time in the flows inside a node, over all levels of such nodes.
MAX_INNER_AT_ONCE: Final = 10_000
#: Deepest nesting of arrays and objects in a document; JSON tools give up soon after.
MAX_DEPTH: Final = 100
#: Rings named in one answer; breaking these usually breaks the rest.
MAX_RINGS: Final = 10
#: Suggestions in one answer; each costs a comparison with every known word.
MAX_SUGGESTIONS: Final = 50
#: Mistakes in one answer; who has more has one cause for all of them.
MAX_MISTAKES: Final = 500

_P = TypeVar("_P", bound=BaseModel)


@dataclass(slots=True)
class _Draft:
    """What could be read of a document, with places, and what could not."""

    problems: list[Problem] = field(default_factory=list)
    nodes: dict[int, Node] = field(default_factory=dict)
    connections: dict[int, Connection] = field(default_factory=dict)
    #: Every id that some node claims, also nodes that are otherwise wrong.
    ids: list[str] = field(default_factory=list)
    #: How often this flow itself may run at the same time, when it stands inside a node.
    at_once: int = 1

    suggestions: int = 0

    def suggest(self, given: str, known: Sequence[str]) -> str:
        """Name the known word that was probably meant, as long as looking for it stays cheap."""
        self.suggestions += 1
        return did_you_mean(given, known) if self.suggestions <= MAX_SUGGESTIONS and len(known) <= 1000 else ""

    def note(self, path: str, message: str, fix: str = "") -> None:
        self.problems.append(Problem(path=path, message=message, fix=fix, severity="note"))

    def wrong(self, path: str, message: str, fix: str = "") -> None:
        self.problems.append(Problem(path=path, message=message, fix=fix))


def read_document(
    raw: object, *, catalog: Catalog, max_inline_http: timedelta
) -> tuple[FlowDocument, tuple[Problem, ...]]:
    """Check a document in Flo's or FlowEngine's form; give its canonical form, and notes on what was assumed.

    Raises Invalid with every problem at once. What this returns, dumped and read again, gives the same.
    """
    if not isinstance(raw, dict):
        given = f"given {short(raw)}" if _depth_within(raw, MAX_DEPTH) else "given something else"
        raise Invalid(
            [Problem(path="$", message=f"a flow document must be a JSON object; {given}")], what="flow document"
        )
    if not _depth_within(raw, MAX_DEPTH):
        raise Invalid([Problem(path="$", message=f"nested deeper than {MAX_DEPTH} levels")], what="flow document")

    draft = _Draft()
    raw = {key: value for key, value in raw.items() if key != "$schema"}  # for editors; says nothing about the flow
    document = _read_shapes(raw, draft)
    _check_meaning(draft, catalog, PushLimits(max_inline_http=max_inline_http, npm=catalog.npm))

    notes = tuple(problem for problem in draft.problems if problem.severity == "note")
    mistakes = [problem for problem in draft.problems if problem.severity == "error"]
    if len(mistakes) > MAX_MISTAKES:
        more = Problem(path="$", message=f"and {len(mistakes) - MAX_MISTAKES} more mistakes")
        mistakes = [*mistakes[:MAX_MISTAKES], more]
    if mistakes or document is None:
        raise Invalid(mistakes, what="flow document")
    return document, notes


# Shapes: is each part of the document what it should be?


def _read_shapes(raw: dict[str, Any], draft: _Draft) -> FlowDocument | None:
    typed = is_typed_form(raw)
    for index, item in enumerate(_items(raw, "nodes", draft)):
        _read_node(item, index, draft, typed=typed)
    for index, item in enumerate(_items(raw, "connections", draft)):
        connection = _read(Connection, item, f"connections[{index}]", draft)
        if connection is not None:
            draft.connections[index] = connection
    if "nodes" in raw and raw["nodes"] == []:
        draft.wrong(
            "nodes", "the flow has no nodes", 'add one, e.g. {"id": "say", "node_type": "debug.log", "config": {}}'
        )
    _note_triggers(raw, draft)

    rest = {**raw, "nodes": (), "connections": ()} if "nodes" in raw else {**raw, "connections": ()}
    frame = _read(FlowDocument, rest, "", draft)
    if frame is None:
        return None
    return frame.model_copy(
        update={"nodes": tuple(draft.nodes.values()), "connections": tuple(draft.connections.values())}
    )


def _items(raw: dict[str, Any], key: str, draft: _Draft) -> Sequence[Any]:
    given = raw.get(key, [])
    if not isinstance(given, list | tuple):
        draft.wrong(key, f"must be an array; given {short(given)}")
        return []
    if len(given) > MAX_NODES and key == "nodes":
        draft.wrong(key, f"{len(given)} nodes, but a flow may have at most {MAX_NODES}", "split it into several flows")
        return []
    return given


def _read_node(item: Any, index: int, draft: _Draft, *, typed: bool) -> None:
    path = f"nodes[{index}]"
    if not isinstance(item, dict):
        draft.wrong(path, f"must be an object; given {short(item)}")
        return
    if isinstance(item.get("id"), str):
        draft.ids.append(item["id"])
    config = item.get("config")
    if isinstance(config, dict):
        size = len(dumps(config).encode())
        if size > MAX_CONFIG_BYTES:
            draft.wrong(
                f"{path}.config",
                f"the config is {size:,} bytes, but at most {MAX_CONFIG_BYTES:,} are allowed",
                "pass big data in the payload, or fetch it by http.request",
            )
            return
        if typed:
            before = len(draft.problems)
            item = {**item, "config": plain_config(config, path=f"{path}.config", problems=draft.problems)}
            if len(draft.problems) > before:
                return
    policy = item.get("retry_policy")
    if isinstance(policy, dict) and "retry_on_timeout" not in policy:
        draft.note(f"{path}.retry_policy", "retry_on_timeout missing: taken as false")
    node = _read(Node, item, path, draft)
    if node is not None:
        draft.nodes[index] = node


def _read(model: type[_P], item: Any, path: str, draft: _Draft) -> _P | None:
    try:
        return model.model_validate(item)
    except ValidationError as mistakes:
        draft.problems.extend(problems_of(mistakes, path=path, model=model))
        return None


def _note_triggers(raw: dict[str, Any], draft: _Draft) -> None:
    triggers = raw.get("triggers")
    for index, trigger in enumerate(triggers if isinstance(triggers, list | tuple) else ()):
        match trigger:
            case {"trigger_type": {"type": "Cron" | "Webhook" | "Event" as kind}} if trigger.get("enabled", True):
                draft.note(
                    f"triggers[{index}]",
                    f"a {kind} trigger is kept but does not start the flow",
                    "create an event: PUT /api/v1/apps/{app}/events/{event}",
                )


def _depth_within(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            if isinstance(item, dict | list | tuple)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False


# Meaning: do the parts fit together?


def _check_meaning(draft: _Draft, catalog: Catalog, limits: PushLimits) -> None:
    _check_ids(draft)
    types = _check_types(draft, catalog)
    configs = _check_configs(draft, types, catalog, limits)
    _check_connections(draft, types, configs)
    _check_inputs(draft, types)
    _check_retries(draft, configs)
    _check_rules(draft)
    _check_rings(draft)


def _check_ids(draft: _Draft) -> None:
    seen: dict[str, int] = {}
    for index, node in draft.nodes.items():
        if node.id in seen:
            draft.wrong(
                f"nodes[{index}].id",
                f'id "{node.id}" is already used by nodes[{seen[node.id]}]',
                "give every node an id of its own",
            )
        seen.setdefault(node.id, index)


def _check_types(draft: _Draft, catalog: Catalog) -> dict[int, NodeType]:
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
    draft: _Draft, types: dict[int, NodeType], catalog: Catalog, limits: PushLimits
) -> dict[int, NodeConfig]:
    """Read each config, and the flows that stand inside it."""
    configs: dict[int, NodeConfig] = {}
    for index, node_type in types.items():
        node, path = draft.nodes[index], f"nodes[{index}].config"
        config = _read(node_type.config, node.config, path, draft)
        if config is None:
            continue
        configs[index] = config
        for refusal in config.refusals(limits):
            draft.wrong(f"{path}.{refusal.key}", f'node "{node.id}": {refusal.message}', refusal.fix)
        for place, inner in config.inner_flows().items():
            _check_inner(inner, f"{path}.{place}", draft, catalog, limits, at_once=config.inner_at_once())
    return configs


def _check_inner(
    document: FlowDocument, path: str, outer: _Draft, catalog: Catalog, limits: PushLimits, *, at_once: int
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
    inner = _Draft(
        at_once=at_once,
        nodes=dict(enumerate(document.nodes)),
        connections=dict(enumerate(document.connections)),
        ids=[node.id for node in document.nodes],
    )
    _check_meaning(inner, catalog, limits)
    short_form = path.endswith(".node")  # the config says `node`, and has no list of nodes
    for problem in inner.problems:
        if problem.severity == "error":
            place = problem.path.removeprefix("nodes[0]").lstrip(".") if short_form else problem.path
            outer.problems.append(replace(problem, path=f"{path}.{place}" if place else path))


def _check_retries(draft: _Draft, configs: dict[int, NodeConfig]) -> None:
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


def _check_connections(draft: _Draft, types: dict[int, NodeType], configs: dict[int, NodeConfig]) -> None:
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
    draft: _Draft, path: str, wire: Connection, *, source: NodeType, config: NodeConfig | None, rule: TriggerRule | None
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


def _check_rules(draft: _Draft) -> None:
    fed = {wire.to_node for wire in draft.connections.values()}
    for index, node in draft.nodes.items():
        if node.trigger_rule is not None and node.id not in fed:
            path = f"nodes[{index}].trigger_rule"
            draft.note(path, f'nothing feeds node "{node.id}", so it starts with the flow, whatever its rule')


def _check_inputs(draft: _Draft, types: dict[int, NodeType]) -> None:
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


def _check_rings(draft: _Draft) -> None:
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


def _rings(draft: _Draft) -> Iterator[list[str]]:
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
