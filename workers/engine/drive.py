"""Runs a flow: starts nodes, waits for them, tells what happened. What to do next is decided in `advance.py`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, assert_never

import structlog

from schemas.errors import Invalid
from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Parked, Retry, RunError, Succeeded, Wait
from schemas.run import EventType, Happening
from schemas.waitpoint import child_waitpoint, opened_by
from workers.engine.actions import Action, End, GiveUp, Pause, Start, StartOver, Suspend
from workers.engine.advance import Checkpoint, RunState
from workers.engine.attempt import try_node
from workers.engine.checkpoint import recall
from workers.engine.hooks import Hook, NodeSeen, RunSeen, tell
from workers.engine.inner import InnerFlows
from workers.engine.plan import Plan, Plans, Step, plan_of
from workers.engine.ports import check_inputs, result_of, root_inputs, wired_inputs
from workers.engine.registry import BUILT_IN, Registry
from workers.engine.shared import Shared
from workers.engine.sink import EventSink
from workers.engine.solo import SoloOrder, SoloTry
from workers.engine.waits import NodeWaits
from workers.nodes.node import NodeCall, NodeError, NodeTools, Park

log = structlog.get_logger(__name__)

#: Nodes that a strand runs before it lets the event loop serve others; a chain of instant nodes would never do so.
NODES_PER_TURN = 16
#: Pause before another attempt at a run whose happenings could not be stored, or that broke the engine.
PAUSE_AFTER_LOSS = timedelta(seconds=1)

#: How long a cancelled node may take to stop before it is cancelled once more, and the log says so.
PATIENCE = timedelta(seconds=10)


async def run_flow(
    document: FlowDocument,
    payload: JSONValue,
    *,
    tools: NodeTools,
    events: EventSink,
    past: Sequence[Happening] = (),
    registry: Registry = BUILT_IN,
    plans: Plans | None = None,
    shared: Shared | None = None,
    hooks: Sequence[Hook] = (),
    may_park: bool = False,
) -> Outcome:
    """Run the flow to its end and tell each node's happenings; what `past` completed is not repeated.

    `plans` keeps what was made ready of documents, by a registry of its own; `shared` is what the runs of one worker
    have in common. `may_park` says that whoever asks keeps a run that waits for something outside, and asks again when
    that has come; else waits are over in here, or fail. Raises only CancelledError, after every node has been cancelled
    and has stopped.
    """
    try:
        plan = plans.of(document) if plans is not None else plan_of(document, registry)
    except Invalid as mistakes:
        return Failed(error=RunError(kind=ErrorKind.INVALID_INPUT, message=str(mistakes)))
    checkpoint = recall(document, past)
    drive = _Drive(
        plan, checkpoint, payload, tools=tools, events=events, shared=shared or Shared(), hooks=hooks, may_park=may_park
    )
    if not hooks:
        return await drive.to_the_end()
    await tell(hooks, lambda hook: hook.before_flow(drive.run_seen, payload))
    outcome: Outcome = Cancelled(reason="stopped from outside")
    try:
        outcome = await drive.to_the_end()
    finally:
        await tell(hooks, lambda hook: hook.after_flow(drive.run_seen, outcome))
    return outcome


class _Drive:
    """One attempt at one run.

    A strand is a task that runs a node, then one of those that it made ready, and so on; the others get strands of
    their own. So a chain costs one task, and parallel nodes are really parallel.
    """

    def __init__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        payload: JSONValue,
        *,
        tools: NodeTools,
        events: EventSink,
        shared: Shared,
        hooks: Sequence[Hook] = (),
        may_park: bool = False,
    ) -> None:
        document = plan.document
        self.run_seen = RunSeen(run_id=tools.run_id, app=tools.app, flow=document.name, attempt=tools.attempt)
        self._plan = plan
        self._checkpoint = checkpoint
        self._may_park = may_park
        #: What nodes noted that have begun to wait; the waits of those that stopped waiting are forgotten.
        self._noted: dict[int, JSONObject] = dict(checkpoint.waits)
        self._opened: set[str] = set(checkpoint.opened)
        self._waits: dict[int, Wait] = {}
        self._state = RunState(
            plan.graph, document.nodes, document.settings, branching=plan.branching, checkpoint=checkpoint
        )
        self._payload = payload
        self._tools = tools
        self._events = events
        self._shared = shared
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._strands: set[asyncio.Task[None]] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._running: dict[int, int] = {}
        self._end: asyncio.Future[End | StartOver | Suspend | Retry] = self._loop.create_future()

    async def to_the_end(self) -> Outcome:
        limit = self._plan.document.settings.max_execution_time
        try:
            async with asyncio.timeout(limit.total_seconds()) as deadline:
                try:
                    return await self._rounds()
                finally:
                    await self._stop("the flow ran into its time limit" if deadline.expired() else "the run is over")
        except TimeoutError:
            return Failed(error=flow_took_too_long(limit))

    async def _rounds(self) -> Outcome:
        """Run the flow, and run it over again as often as its document asks for that."""
        while True:
            self._end = self._loop.create_future()
            self._perform(self._state.begin())
            match await self._end:
                case StartOver() as again:
                    await self._stop("the flow starts over after an error in another node")
                    self._noted.clear()
                    self._waits.clear()
                    self._say_starting_over(again)
                case Suspend(nodes=nodes):
                    self._running.clear()  # all of them wait, and are not stopped
                    return Parked(waits=tuple(self._waits[node] for node in nodes))
                case End(error=None):
                    return Succeeded(result=self._result())
                case End(error=RunError() as error):
                    await self._stop(f'node "{error.node_id}" failed')
                    return Failed(error=error)
                case Retry() as retry:
                    return retry

    # What happens to one node

    async def _strand(self, first: Start) -> None:
        start: Start | None = first
        count = 0
        while start is not None:
            start = self._perform(await self._run_node(start), in_strand=True)
            count += 1
            if count % NODES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _run_node(self, start: Start) -> list[Action]:
        step = self._plan.steps[start.node]
        self._running[start.node] = start.attempt
        self._say(EventType.NODE_STARTED, step.id, {"node_type": step.type.type, "attempt": start.attempt})
        began = time.perf_counter()
        try:
            outputs, cached = await self._try(step, start)
        except Park as park:
            self._waits[start.node] = park.wait
            return self._state.parked(start.node)
        except NodeError as failure:
            error = failure.error.model_copy(update={"node_id": step.id})
            del self._running[start.node]
            self._noted.pop(start.node, None)  # the next try, if there is one, waits anew
            return self._state.failed(start.node, error, roll=random.random())
        duration_ms = round((time.perf_counter() - began) * 1000, 3)
        said: JSONObject = {"outputs": dict(outputs), "attempt": start.attempt, "duration_ms": duration_ms}
        self._say(EventType.NODE_COMPLETED, step.id, {**said, "cached": True} if cached else said)
        del self._running[start.node]
        if step.has_effects:
            await self._events.flush()  # what has an effect outside is on record before anything builds on it
        return self._state.succeeded(start.node, outputs)

    async def _try(self, step: Step, start: Start) -> tuple[Mapping[str, JSONValue], bool]:
        """Try the node once; give its outputs, and whether they were known before."""
        call: NodeCall[Any] = NodeCall(
            node_id=step.id,
            config=step.config,
            inputs=self._inputs(step, start.node),
            attempt=start.attempt,
            tools=self._tools,
            emit=lambda type_, data: self._say(type_, step.id, data),
            inner=self._inner(step, start.node) if step.inner else None,
            waits=self._node_waits(step, start.node) if self._may_park else None,
            solo=self._solo(step, start) if step.place != "inline" else None,
        )
        if not self._hooks:
            return await try_node(step, call, self._shared, flow=self._plan.document.name)
        seen = NodeSeen(run=self.run_seen, node_id=step.id, node_type=step.type.type, attempt=start.attempt)
        await tell(self._hooks, lambda hook: hook.before_node(seen, call.inputs))
        try:
            outputs, cached = await try_node(step, call, self._shared, flow=self._plan.document.name)
        except NodeError as failure:
            error = failure.error
            await tell(self._hooks, lambda hook: hook.after_node(seen, error))
            raise
        await tell(self._hooks, lambda hook: hook.after_node(seen, outputs))
        return outputs, cached

    def _inner(self, step: Step, node: int) -> InnerFlows:
        async def run(plan: Plan, payload: JSONValue, events: EventSink) -> Outcome:
            drive = _Drive(plan, Checkpoint(), payload, tools=self._tools, events=events, shared=self._shared)
            return await drive.to_the_end()

        return InnerFlows(step, run, self._events, self._say, kept=self._checkpoint.parts.get(node, {}))

    def _node_waits(self, step: Step, node: int) -> NodeWaits:
        return NodeWaits(
            begun=self._noted.get(node),
            opened=self._opened,
            answers=self._checkpoint.answers,
            woken=self._checkpoint.woken,
            child=partial(child_waitpoint, self._tools.run_id, step.id, self._state.round, self._state.failures(node)),
            say=lambda data: self._say(EventType.DATA, step.id, data),
        )

    def _solo(self, step: Step, start: Start) -> SoloTry:
        is_fed = bool(self._plan.graph.wires[start.node])
        # To park and to be asked again is no new try at a node in a pod, though it is started once more.
        attempt = self._state.failures(start.node) + 1 if step.place == "pod" and self._may_park else start.attempt
        order = SoloOrder(
            run_id=self._tools.run_id,
            app=self._tools.app,
            run_attempt=self._tools.attempt,
            node=step.node,
            place=step.place,
            attempt=attempt,
            payload=None if is_fed else self._payload,
            brought=self._inputs(step, start.node) if is_fed else None,
            kept=self._checkpoint.parts.get(start.node, {}),
            egress=self._tools.egress,
        )
        return SoloTry(order=order, flush=self._events.flush)

    def _inputs(self, step: Step, node: int) -> JSONObject:
        wires = self._plan.graph.wires[node]
        if wires:
            inputs = wired_inputs(wires, step.fixed, self._state.outputs, self._state.errors)
        else:
            inputs = root_inputs(step.type, step.fixed, self._payload)
        check_inputs(step.type, inputs)
        return inputs

    # What the state asks for

    def _perform(self, actions: Sequence[Action], *, in_strand: bool = False) -> Start | None:
        """Do everything; within a strand, leave one node for that strand to run next."""
        next_: Start | None = None
        for action in actions:
            match action:
                case Start():
                    if in_strand and next_ is None:
                        next_ = action
                    else:
                        self._start(action)
                case Pause(node=node, delay=delay):
                    self._say_error(EventType.NODE_RETRYING, action, delay_ms=round(delay.total_seconds() * 1000))
                    self._timers[node] = self._loop.call_later(delay.total_seconds(), self._due, node)
                case GiveUp():
                    self._say_error(EventType.NODE_FAILED, action)
                case End() | StartOver() | Suspend():
                    self._settle(action)
                case _:
                    assert_never(action)
        return next_

    def _start(self, start: Start) -> None:
        strand = self._loop.create_task(self._strand(start))
        self._strands.add(strand)
        strand.add_done_callback(self._strand_ended)

    def _due(self, node: int) -> None:
        del self._timers[node]
        self._perform(self._state.due(node))

    def _strand_ended(self, strand: asyncio.Task[None]) -> None:
        self._strands.discard(strand)
        if not strand.cancelled() and (error := strand.exception()) is not None:
            log.error("attempt.broke", run_id=self._tools.run_id, exc_info=error)
            self._settle(Retry(after=PAUSE_AFTER_LOSS, reason=f"the engine could not go on: {error!r}"))

    def _settle(self, end: End | StartOver | Suspend | Retry) -> None:
        if not self._end.done():
            self._end.set_result(end)

    async def _stop(self, reason: str) -> None:
        """Cancel everything that runs, and return only when it has stopped."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        cancelled: asyncio.CancelledError | None = None
        if self._strands and not self._running:
            try:
                await asyncio.sleep(0)  # they have nothing left to do but to end, mostly
            except asyncio.CancelledError as again:
                cancelled = again
        for strand in self._strands:
            strand.cancel()
        while self._strands:
            try:
                _, stubborn = await asyncio.wait(self._strands, timeout=PATIENCE.total_seconds())
            except asyncio.CancelledError as again:  # asked twice; still nothing may be left running
                cancelled = again
                continue
            for strand in stubborn:
                log.warning("node.did_not_stop", run_id=self._tools.run_id, running=list(self._running))
                strand.cancel()
        for node, attempt in self._running.items():
            node_id = self._plan.steps[node].id
            error = RunError(kind=ErrorKind.CANCELLED, message=f"stopped: {reason}", node_id=node_id)
            self._say_error(EventType.NODE_FAILED, GiveUp(node, attempt, error))
        self._running.clear()
        if cancelled is not None:
            raise cancelled

    # What is told

    def _result(self) -> JSONValue:
        plan = self._plan
        return result_of(plan.graph, plan.ids, plan.types, self._state.outputs, skipped=self._state.skipped)

    def _say_error(self, type_: EventType, action: Pause | GiveUp, **more: JSONValue) -> None:
        error = action.error.model_dump(mode="json", exclude_none=True)
        self._say(type_, self._plan.steps[action.node].id, {"error": error, "attempt": action.attempt, **more})

    def _say_starting_over(self, again: StartOver) -> None:
        message = (
            f'the flow starts over (round {again.round}), as node "{again.error.node_id}" failed: {again.error.message}'
        )
        self._events.emit(Happening(EventType.LOG, {"level": "warning", "message": message}))

    def _say(self, type_: EventType, node_id: str, data: JSONObject) -> None:
        if (opening := opened_by(data)) is not None:
            self._opened.add(opening[0])
        if self._state.round > 1:
            data = {**data, "round": self._state.round}
        self._events.emit(Happening(type_, data, node_id))


def flow_took_too_long(limit: timedelta) -> RunError:
    seconds, setting = limit.total_seconds(), "settings.max_execution_time_ms"
    return RunError(
        kind=ErrorKind.TIMED_OUT,
        message=f"the flow took longer than its limit of {seconds:g} s; raise {setting} if it needs more",
        details={"limit_ms": round(seconds * 1000), "raise_with": setting},
    )
