"""Plays a run against `RunState` without a clock or tasks: the test says which running node ends next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from schemas.flow import Connection, FlowDocument, FlowSettings, Node, RetryPolicy
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening
from workers.engine.advance import Action, End, GiveUp, Outputs, Pause, RunState, Start, StartOver
from workers.engine.checkpoint import recall
from workers.engine.graph import graph_of

#: Chooses which of the nodes that could go on does so.
Chooser = Callable[[Sequence[int]], int]


@dataclass(frozen=True)
class Story:
    """A flow, and how often each of its nodes fails in a round before it works."""

    document: FlowDocument
    fails: tuple[int, ...]


@dataclass
class Played:
    """What came of a run, and what could be seen on the way."""

    end: End | None = None
    outputs: dict[int, Outputs] = field(default_factory=dict)
    happenings: list[Happening] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    most_at_once: int = 0
    #: Starts of nodes before all that they wait for were done.
    early: list[int] = field(default_factory=list)


def play(story: Story, choose: Chooser, *, past: Iterable[Happening] = ()) -> Played:
    """Run the story to its end."""
    past = list(past)
    document, graph = story.document, graph_of(story.document)
    checkpoint = recall(document, past)
    state = RunState(graph, [node.retry_policy for node in document.nodes], document.settings, checkpoint)
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
                    played.early += [node] * any(wire.source not in state.outputs for wire in graph.wires[node])
                    say(EventType.NODE_STARTED, node, attempt=attempt)
                case Pause(node, attempt, error, _):
                    paused.append(node)
                    say(EventType.NODE_RETRYING, node, attempt=attempt, error=error.model_dump(mode="json"))
                case GiveUp(node, attempt, error):
                    say(EventType.NODE_FAILED, node, attempt=attempt, error=error.model_dump(mode="json"))
                case End():
                    played.end = action
                case StartOver():
                    stopped = RunError(kind=ErrorKind.CANCELLED, message="stopped").model_dump(mode="json")
                    for node in running:
                        say(EventType.NODE_FAILED, node, error=stopped)
                    running.clear()
                    paused.clear()
                    failures.clear()
                    perform(state.begin())

    perform(state.begin())
    while played.end is None:
        node = choose(sorted({*running, *paused}))
        if node in paused:
            paused.remove(node)
            perform(state.due(node))
            continue
        running.remove(node)
        if failures.get(node, 0) < story.fails[node]:
            failures[node] = failures.get(node, 0) + 1
            perform(state.failed(node, RunError(kind=ErrorKind.USER, message="no", node_id=document.nodes[node].id)))
        else:
            heard: list[Any] = [[wire.source, dict(state.outputs[wire.source])] for wire in graph.wires[node]]
            outputs: dict[str, JSONValue] = {"said": node, "heard": heard}
            say(EventType.NODE_COMPLETED, node, outputs=outputs)
            perform(state.succeeded(node, outputs))
    played.outputs = dict(state.outputs)
    return played


def acyclic_document(
    size: int, edges: Iterable[tuple[int, int]], *, policies: Sequence[RetryPolicy | None] = (), **settings: Any
) -> FlowDocument:
    """Make a document whose edges all lead from a lower to a higher number."""
    every = policies or [None] * size
    return FlowDocument(
        name="any",
        nodes=tuple(
            Node(id=f"n{number}", node_type="test", retry_policy=policy)
            for number, policy in zip(range(size), every, strict=True)
        ),
        connections=tuple(
            Connection(from_node=f"n{start}", from_port="said", to_node=f"n{end}", to_port=f"from{start}")
            for start, end in edges
        ),
        settings=FlowSettings.model_validate(settings),
    )


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any small acyclic flow with any settings, whose nodes fail any number of times."""
    size = draw(st.integers(1, 8))
    pairs = [(start, end) for end in range(size) for start in range(end)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    policy = st.none() | st.builds(RetryPolicy, max_attempts=st.integers(1, 3), delay_ms=st.just(0))
    document = acyclic_document(
        size,
        edges,
        policies=draw(st.lists(policy, min_size=size, max_size=size)),
        max_parallel_nodes=draw(st.integers(1, 4)),
        on_error=draw(st.sampled_from(["StopWorkflow", "ContinueOnError", {"RetryWorkflow": {"max_attempts": 2}}])),
    )
    fails = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 9]), min_size=size, max_size=size))
    return Story(document, tuple(fails))


@st.composite
def choosers(draw: st.DrawFn) -> Chooser:
    """Any order in which nodes end."""
    random = draw(st.randoms(use_true_random=False))
    return lambda nodes: random.choice(list(nodes))
