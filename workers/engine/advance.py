"""What to do next in a run: the state changes with what happened to a node, and tells what is to be done.

No clock, no tasks, no chance: the same calls give the same actions. The state is changed in place, as copying it for
every node would make the cost of a flow quadratic.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from schemas.flow import TAKES_FAILURES, FlowSettings, Node, RetryWorkflowOnError
from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, RunError
from workers.engine.actions import Action, End, GiveUp, Pause, Start, StartOver, Suspend
from workers.engine.graph import Graph
from workers.engine.retry import pause_before_retry
from workers.engine.trigger import Fate, decide

Outputs: TypeAlias = Mapping[str, JSONValue]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What earlier attempts at the run have already done."""

    done: Mapping[int, Outputs] = field(default_factory=dict)
    #: Nodes that failed for good, and that the flow went on without.
    failed: Mapping[int, RunError] = field(default_factory=dict)
    #: Attempts that were made at a node, and how many of them failed by its own fault.
    attempts: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[int, int] = field(default_factory=dict)
    #: Of nodes that do their work in parts: the parts that are done, by their place.
    parts: Mapping[int, Mapping[int, JSONValue]] = field(default_factory=dict)
    #: Of nodes that have begun to wait for something outside: what they noted then.
    waits: Mapping[int, JSONObject] = field(default_factory=dict)
    #: What came to waitpoints, by their ids; and those that nodes have opened.
    answers: Mapping[str, JSONObject] = field(default_factory=dict)
    opened: Set[str] = frozenset()
    #: The latest time for which the run was woken; it is what counts for waits, and not this machine's clock.
    woken: datetime | None = None
    round: int = 1


class _Tally:
    """What became of the nodes that feed one: how many have which fate, and how many have none yet."""

    __slots__ = ("failed", "skipped", "succeeded", "waiting")

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.succeeded = self.failed = self.skipped = 0


class RunState:
    """How far a run has come. Each method says what happened and returns what is to be done, in order."""

    def __init__(
        self,
        graph: Graph,
        nodes: Sequence[Node],
        settings: FlowSettings,
        *,
        branching: Set[int] = frozenset(),
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """`branching` are the nodes whose connections from an output port that they left empty are not taken."""
        checkpoint = checkpoint or Checkpoint()
        self._graph = graph
        self._nodes = nodes
        self._settings = settings
        self._branching = branching
        self.round = checkpoint.round
        #: What each node gave that succeeded, and why each failed that the flow could go on without.
        self.outputs: dict[int, Outputs] = dict(checkpoint.done)
        self.errors: dict[int, RunError] = dict(checkpoint.failed)
        self.skipped: set[int] = set()
        self._attempts = dict(checkpoint.attempts)
        self._failures = dict(checkpoint.failures)
        self._lost: set[int] = set()
        self._tallies: list[_Tally] = []
        #: Nodes to start, those first that stand first in the document; and all that ever were in it this round.
        self._ready: list[int] = []
        self._decided: set[int] = set()
        self._running: set[int] = set()
        self._paused: set[int] = set()
        self._parked: set[int] = set()
        self._phase: Literal["open", "closed"] = "closed"
        self._starting_over = False

    def begin(self) -> list[Action]:
        """Start a round: every node that isn't over and waits for nothing is ready."""
        if self._starting_over:
            self._forget()
        self._phase = "open"
        self._tallies = [_Tally(count) for count in self._graph.waits_for]
        self._decided = {*self.outputs, *self.errors}
        for node in self.outputs:
            self._tell(node, "succeeded")
        for node in self.errors:
            self._tell(node, "failed")
        self._decide(range(len(self._nodes)))
        return self._start_ready()

    def succeeded(self, node: int, outputs: Outputs) -> list[Action]:
        if self._phase == "closed":
            return []
        self._running.discard(node)
        self.outputs[node] = outputs
        self._decide(self._tell(node, "succeeded"))
        return self._start_ready()

    def failed(self, node: int, error: RunError, *, roll: float = 0.0) -> list[Action]:
        """Retry, go on without it, start over or end, as the document says. `roll` is chance, 0 up to 1, for jitter."""
        if self._phase == "closed":
            return []
        self._running.discard(node)
        attempt = self._attempts[node]
        if error.kind is ErrorKind.LOST and node not in self._lost:
            self._lost.add(node)  # no fault of the node: the first time is free
            return self._retry(node, attempt, error, timedelta(0))
        if error.kind is ErrorKind.LOST:
            error = error.model_copy(
                update={"kind": ErrorKind.INTERNAL, "message": f"{error.message} (twice; the worker's log knows more)"}
            )
        failures = self._failures[node] = self._failures.get(node, 0) + 1
        pause = pause_before_retry(self._nodes[node].retry_policy, error, failures=failures, roll=roll)
        if pause is not None:
            return self._retry(node, attempt, error, pause)
        given_up: Action = GiveUp(node, attempt, error)
        if not self._goes_on_without(node):
            return [given_up, *self._stop(error)]
        self.errors[node] = error
        self._decide(self._tell(node, "failed"))
        return [given_up, *self._start_ready()]

    def parked(self, node: int) -> list[Action]:
        """Note that the node waits for something outside; once nothing else can run, the attempt ends."""
        if self._phase == "closed":
            return []
        self._running.discard(node)
        self._parked.add(node)
        return self._start_ready()

    def due(self, node: int) -> list[Action]:
        """The pause before a retry is over."""
        if self._phase == "closed":
            return []
        self._paused.discard(node)
        heapq.heappush(self._ready, node)
        return self._start_ready()

    def failures(self, node: int) -> int:
        """Count the failures of a node in this round."""
        return self._failures.get(node, 0)

    def ended(self, node: int) -> Fate | None:
        """Tell how a node ended, if it has."""
        if node in self.outputs:
            return "succeeded"
        return "failed" if node in self.errors else "skipped" if node in self.skipped else None

    # Nodes whose turn has come, and those whose turn never will

    def _tell(self, node: int, fate: Fate) -> list[int]:
        """Let those that a node feeds know how it ended; give those that may now be decided."""
        after = self._graph.after[node]
        given = self.outputs[node] if fate == "succeeded" and node in self._branching else None
        for dependent, ports in after.items():
            tally = self._tallies[dependent]
            tally.waiting -= 1
            if fate == "failed":
                tally.failed += 1
            elif fate == "skipped" or (given is not None and not any(port in given for port in ports)):
                tally.skipped += 1
            else:
                tally.succeeded += 1
        return list(after)

    def _decide(self, nodes: Sequence[int]) -> None:
        """Make ready what can start, and skip what can't any more, with all that follows from that."""
        todo = list(reversed(nodes))
        while todo:
            node = todo.pop()
            if node in self._decided:
                continue
            match self._decision(node):
                case "start":
                    self._decided.add(node)
                    heapq.heappush(self._ready, node)
                case "skip":
                    self._decided.add(node)
                    self.skipped.add(node)
                    todo += self._tell(node, "skipped")

    def _decision(self, node: int) -> Literal["start", "skip", "wait"]:
        tally = self._tallies[node]
        if not self._graph.waits_for[node]:
            return "start"
        rule, succeeded, failed = self._nodes[node].trigger_rule, tally.succeeded, tally.failed
        if rule is None and self._settings.on_error == "ContinueOnError":  # as if those that failed had not
            succeeded, failed = succeeded + failed, 0
        return decide(
            rule or "all_success", waiting=tally.waiting, succeeded=succeeded, failed=failed, skipped=tally.skipped
        )

    def _start_ready(self) -> list[Action]:
        starts: list[Action] = []
        while self._ready and len(self._running) < self._settings.most_at_once:
            node = heapq.heappop(self._ready)
            attempt = self._attempts[node] = self._attempts.get(node, 0) + 1
            self._running.add(node)
            starts.append(Start(node, attempt))
        if not self._running and not self._paused:
            if self._parked:
                nodes = tuple(sorted(self._parked))
                self._close()
                return [Suspend(nodes)]
            error = self._unforgiven()
            return self._stop(error) if error else self._end(None)
        return starts

    # Failures

    def _retry(self, node: int, attempt: int, error: RunError, pause: timedelta) -> list[Action]:
        self._paused.add(node)
        return [Pause(node, attempt, error, pause), *self._start_ready()]

    def _goes_on_without(self, node: int) -> bool:
        """Tell whether the flow goes on after this node has failed: it says so itself, or some node waits for that."""
        return self._settings.on_error == "ContinueOnError" or any(
            self._nodes[dependent].trigger_rule in TAKES_FAILURES for dependent in self._graph.after[node]
        )

    def _unforgiven(self) -> RunError | None:
        """Find the first failure, in the document's order, that no node was there to make good."""
        if self._settings.on_error == "ContinueOnError":
            return None
        return next((self.errors[node] for node in sorted(self.errors) if not self._made_good(node)), None)

    def _made_good(self, node: int) -> bool:
        """Tell whether a node that starts because of failures ran; one that only cleans up makes nothing good."""
        return any(
            dependent not in self.skipped and self._nodes[dependent].trigger_rule in ("one_failed", "all_failed")
            for dependent in self._graph.after[node]
        )

    def _stop(self, error: RunError) -> list[Action]:
        match self._settings.on_error:
            case RetryWorkflowOnError(RetryWorkflow=rule) if self.round < rule.max_attempts:
                self._close()
                self._starting_over = True
                return [StartOver(self.round + 1, error)]
        return self._end(error)

    def _end(self, error: RunError | None) -> list[Action]:
        self._close()
        return [End(error)]

    def _forget(self) -> None:
        self._starting_over = False
        self.round += 1
        self.outputs.clear()
        self.errors.clear()
        self.skipped.clear()
        self._failures.clear()
        self._lost.clear()

    def _close(self) -> None:
        self._phase = "closed"
        self._ready.clear()
        self._running.clear()
        self._paused.clear()
        self._parked.clear()
