"""Plays a run against `RunState` without a clock or tasks: the test says which running node ends next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from hypothesis import strategies as st

from schemas.flow import Connection, FlowDocument, FlowSettings, Node, RetryPolicy, TriggerRule
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening
from workers.engine.actions import Action, End, GiveUp, Pause, Start, StartOver, Suspend
from workers.engine.advance import Outputs, RunState
from workers.engine.checkpoint import recall
from workers.engine.graph import graph_of
from workers.engine.trigger import Fate

#: Chooses which of the nodes that could go on does so.
Chooser = Callable[[Sequence[int]], int]


@dataclass(frozen=True)
class Story:
    """A flow, and how often each of its nodes fails in a round before it works."""

    document: FlowDocument
    fails: tuple[int, ...]
    #: Nodes that leave one of their output ports, said or also, empty; and the one that each fills.
    branching: frozenset[int] = frozenset()
    takes: tuple[str, ...] = ()
    #: How often each node parks before it goes on.
    parks: tuple[int, ...] = ()

    def outputs_of(self, node: int, others: Mapping[int, Outputs]) -> dict[str, JSONValue]:
        """Give what the node says when it works: what it has heard, at each port that it fills."""
        wires = graph_of(self.document).wires[node]
        heard: list[Any] = [[wire.source, others.get(wire.source, {}).get(wire.from_port)] for wire in wires]
        ports = (self.takes[node],) if node in self.branching else ("said", "also")
        return {port: [node, heard] for port in ports}


@dataclass
class Played:
    """What came of a run, and what could be seen on the way."""

    end: End | None = None
    #: Nodes for which the last attempt was parked, and the attempts that were.
    suspended: tuple[int, ...] = ()
    parkings: int = 0
    outputs: dict[int, Outputs] = field(default_factory=dict)
    happenings: list[Happening] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    most_at_once: int = 0
    fates: list[Fate | None] = field(default_factory=list)
    #: Starts of nodes before what their trigger rule asks for had happened.
    early: list[int] = field(default_factory=list)


def play(  # noqa: PLR0915 - a whole run, read from top to bottom
    story: Story, choose: Chooser, *, past: Iterable[Happening] = ()
) -> Played:
    """Run the story to its end."""
    past = list(past)
    document, graph = story.document, graph_of(story.document)
    checkpoint = recall(document, past)
    state = RunState(graph, document.nodes, document.settings, branching=story.branching, checkpoint=checkpoint)
    failures = dict(checkpoint.failures)
    played = Played(happenings=past)
    running: list[int] = []
    paused: list[int] = []

    def say(type_: EventType, node: int, **data: JSONValue) -> None:
        played.happenings.append(Happening(type_, {"round": state.round, **data}, document.nodes[node].id))

    def perform(actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Start(node, attempt):
                    running.append(node)
                    played.starts.append((node, attempt))
                    played.most_at_once = max(played.most_at_once, len(running))
                    played.early += [node] * (not may_start(story, node, list(map(state.ended, graph.sources(node)))))
                    say(EventType.NODE_STARTED, node, attempt=attempt)
                case Pause(node, attempt, error, _):
                    paused.append(node)
                    say(EventType.NODE_RETRYING, node, attempt=attempt, error=error.model_dump(mode="json"))
                case GiveUp(node, attempt, error):
                    say(EventType.NODE_FAILED, node, attempt=attempt, error=error.model_dump(mode="json"))
                case End():
                    played.end = action
                case Suspend(nodes):
                    played.suspended = nodes
                case StartOver():
                    stopped = RunError(kind=ErrorKind.CANCELLED, message="stopped").model_dump(mode="json")
                    for node in running:
                        say(EventType.NODE_FAILED, node, error=stopped)
                    running.clear()
                    paused.clear()
                    failures.clear()
                    perform(state.begin())

    perform(state.begin())
    while played.end is None and not played.suspended:
        node = choose(sorted({*running, *paused}))
        if node in paused:
            paused.remove(node)
            perform(state.due(node))
            continue
        running.remove(node)
        begun = sum(said.type is EventType.DATA for said in played.happenings if said.node_id == f"n{node}")
        if story.parks and begun < story.parks[node]:
            say(EventType.DATA, node, wait={})
            perform(state.parked(node))
            continue
        if failures.get(node, 0) < story.fails[node]:
            failures[node] = failures.get(node, 0) + 1
            perform(state.failed(node, RunError(kind=ErrorKind.USER, message="no", node_id=document.nodes[node].id)))
        else:
            outputs = story.outputs_of(node, state.outputs)
            say(EventType.NODE_COMPLETED, node, outputs=outputs)
            perform(state.succeeded(node, outputs))
    played.outputs = dict(state.outputs)
    played.fates = [state.ended(node) for node in range(len(graph))]
    return played


def play_to_the_end(story: Story, choose: Chooser) -> Played:
    """Run the story, and go on each time that it was parked."""
    played, parkings = play(story, choose), 0
    while played.suspended:
        parkings += 1
        played = play(story, choose, past=played.happenings)
    played.parkings = parkings
    return played


def may_start(story: Story, node: int, fates: Sequence[Fate | None]) -> bool:
    """Say in other words than the engine's when a node may start: nothing that its rule forbids has happened."""
    rule = story.document.nodes[node].trigger_rule
    match rule:
        case "one_success":
            return "succeeded" in fates or not fates
        case "one_failed":
            return "failed" in fates or not fates
        case "all_failed":
            return set(fates) <= {"failed"}
        case "none_failed":
            return set(fates) <= {"succeeded", "skipped"}
        case "all_done":
            return None not in fates
    lenient = rule is None and story.document.settings.on_error == "ContinueOnError"
    return set(fates) <= ({"succeeded", "failed"} if lenient else {"succeeded"})


def acyclic_document(
    size: int,
    edges: Iterable[tuple[int, int]],
    *,
    policies: Sequence[RetryPolicy | None] = (),
    rules: Sequence[TriggerRule | None] = (),
    ports: Sequence[str] = (),
    **settings: Any,
) -> FlowDocument:
    """Make a document whose edges all lead from a lower to a higher number."""
    edges = list(edges)
    return FlowDocument(
        name="any",
        nodes=tuple(
            Node(id=f"n{number}", node_type="test", retry_policy=policy, trigger_rule=rule)
            for number, policy, rule in zip(range(size), policies or [None] * size, rules or [None] * size, strict=True)
        ),
        connections=tuple(
            Connection(from_node=f"n{start}", from_port=port, to_node=f"n{end}", to_port=f"from{start}")
            for (start, end), port in zip(edges, ports or ["said"] * len(edges), strict=True)
        ),
        settings=FlowSettings.model_validate(settings),
    )


#: Half of all nodes have no rule of their own, as in most flows.
RULES: list[TriggerRule | None] = [None] * 6 + list(get_args(TriggerRule))


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any small acyclic flow with any settings, rules and branches, whose nodes fail any number of times."""
    size = draw(st.integers(1, 8))
    pairs = [(start, end) for end in range(size) for start in range(end)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    policy = st.none() | st.builds(RetryPolicy, max_attempts=st.integers(1, 3), delay_ms=st.just(0))
    document = acyclic_document(
        size,
        edges,
        policies=draw(st.lists(policy, min_size=size, max_size=size)),
        rules=draw(st.lists(st.sampled_from(RULES), min_size=size, max_size=size)),
        ports=draw(st.lists(st.sampled_from(["said", "also"]), min_size=len(edges), max_size=len(edges))),
        strategy=draw(st.sampled_from(["parallel", "parallel", "parallel", "sequential"])),
        max_parallel_nodes=draw(st.integers(1, 4)),
        on_error=draw(st.sampled_from(["StopWorkflow", "ContinueOnError", {"RetryWorkflow": {"max_attempts": 2}}])),
    )
    fails = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 9]), min_size=size, max_size=size))
    branching = draw(st.sets(st.integers(0, size - 1)))
    takes = draw(st.lists(st.sampled_from(["said", "also", "neither"]), min_size=size, max_size=size))
    return Story(document, tuple(fails), frozenset(branching), tuple(takes))


@st.composite
def choosers(draw: st.DrawFn) -> Chooser:
    """Any order in which nodes end."""
    random = draw(st.randoms(use_true_random=False))
    return lambda nodes: random.choice(list(nodes))
