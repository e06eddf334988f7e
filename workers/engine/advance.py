"""What to do next in a run: the state changes with what happened to a node, and tells what is to be done.

No clock, no tasks, no chance: the same calls give the same actions. The state is changed in place, as copying it for
every node would make the cost of a flow quadratic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

from schemas.flow import FlowSettings, RetryPolicy, RetryWorkflowOnError
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from workers.engine.graph import Graph
from workers.engine.retry import pause_before_retry

Outputs: TypeAlias = Mapping[str, JSONValue]


@dataclass(frozen=True, slots=True)
class Start:
    """Run this node now."""

    node: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The attempt failed; call `due` after the delay."""

    node: int
    attempt: int
    error: RunError
    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The node has failed for good."""

    node: int
    attempt: int
    error: RunError


@dataclass(frozen=True, slots=True)
class StartOver:
    """Stop what runs, wait until it has stopped, then call `begin` for this round of the whole flow."""

    round: int
    error: RunError


@dataclass(frozen=True, slots=True)
class End:
    """The flow is over: stop what still runs. Without an error it succeeded."""

    error: RunError | None


Action: TypeAlias = Start | Pause | GiveUp | StartOver | End


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What earlier attempts at the run have already done."""

    done: Mapping[int, Outputs] = field(default_factory=dict)
    #: Attempts that were made at a node, and how many of them failed by its own fault.
    attempts: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[int, int] = field(default_factory=dict)
    round: int = 1


class RunState:
    """How far a run has come. Each method says what happened and returns what is to be done, in order."""

    def __init__(
        self,
        graph: Graph,
        policies: Sequence[RetryPolicy | None],
        settings: FlowSettings,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        checkpoint = checkpoint or Checkpoint()
        self._graph = graph
        self._policies = policies
        self._settings = settings
        self.round = checkpoint.round
        #: What each finished node gave; a failed node that does not stop the flow gave nothing.
        self.outputs: dict[int, Outputs] = dict(checkpoint.done)
        self._attempts = dict(checkpoint.attempts)
        self._failures = dict(checkpoint.failures)
        self._lost: set[int] = set()
        self._missing: list[int] = []
        self._ready: deque[int] = deque()
        self._running: set[int] = set()
        self._paused: set[int] = set()
        self._phase: Literal["open", "closed"] = "closed"
        self._starting_over = False

    def begin(self) -> list[Action]:
        """Start a round: every node that isn't done and waits for nothing is ready."""
        if self._starting_over:
            self._forget()
        self._phase = "open"
        self._missing = list(self._graph.waits_for)
        for node in self.outputs:
            for dependent in self._graph.after[node]:
                self._missing[dependent] -= 1
        self._ready = deque(
            node for node, missing in enumerate(self._missing) if not missing and node not in self.outputs
        )
        return self._start_ready()

    def succeeded(self, node: int, outputs: Outputs) -> list[Action]:
        if self._phase == "closed":
            return []
        self._running.discard(node)
        self._finish(node, outputs)
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
        pause = pause_before_retry(self._policies[node], error, failures=failures, roll=roll)
        if pause is not None:
            return self._retry(node, attempt, error, pause)
        return [GiveUp(node, attempt, error), *self._after_giving_up(node, error)]

    def due(self, node: int) -> list[Action]:
        """The pause before a retry is over."""
        if self._phase == "closed":
            return []
        self._paused.discard(node)
        self._ready.append(node)
        return self._start_ready()

    def _retry(self, node: int, attempt: int, error: RunError, pause: timedelta) -> list[Action]:
        self._paused.add(node)
        return [Pause(node, attempt, error, pause), *self._start_ready()]

    def _after_giving_up(self, node: int, error: RunError) -> list[Action]:
        match self._settings.on_error:
            case "ContinueOnError":
                self._finish(node, {})
                return self._start_ready()
            case RetryWorkflowOnError(RetryWorkflow=rule) if self.round < rule.max_attempts:
                self._close()
                self._starting_over = True
                return [StartOver(self.round + 1, error)]
        self._close()
        return [End(error)]

    def _finish(self, node: int, outputs: Outputs) -> None:
        self.outputs[node] = outputs
        for dependent in self._graph.after[node]:
            self._missing[dependent] -= 1
            if not self._missing[dependent] and dependent not in self.outputs:
                self._ready.append(dependent)

    def _start_ready(self) -> list[Action]:
        starts: list[Action] = []
        while self._ready and len(self._running) < self._settings.max_parallel_nodes:
            node = self._ready.popleft()
            attempt = self._attempts[node] = self._attempts.get(node, 0) + 1
            self._running.add(node)
            starts.append(Start(node, attempt))
        if not self._running and not self._paused:
            self._close()
            return [End(None)]
        return starts

    def _forget(self) -> None:
        self._starting_over = False
        self.round += 1
        self.outputs.clear()
        self._failures.clear()
        self._lost.clear()

    def _close(self) -> None:
        self._phase = "closed"
        self._ready.clear()
        self._running.clear()
        self._paused.clear()
