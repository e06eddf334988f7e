"""One try at one node, inside what the document puts around it: cache, then bulkhead, then circuit breaker, then limit.

The retries are outside of all that: each is a new try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog

from schemas.expression import ExpressionError, evaluate
from schemas.flow import CachePolicy, CircuitBreaker
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from workers.engine.bulkhead import BulkheadFull
from workers.engine.circuit import Refused, Verdict
from workers.engine.plan import Step
from workers.engine.results import Question, fingerprint
from workers.engine.shared import Shared
from workers.nodes.node import NodeCall, NodeError, Park, node_error, too_long

log = structlog.get_logger(__name__)

#: Errors that are the caller's doing, and say nothing about the target.
_NOT_THE_TARGETS = frozenset({ErrorKind.SYNTAX, ErrorKind.INVALID_INPUT, ErrorKind.FORBIDDEN, ErrorKind.CANCELLED})


async def try_node(
    step: Step, call: NodeCall[Any], shared: Shared, *, flow: str
) -> tuple[Mapping[str, JSONValue], bool]:
    """Give the outputs, and whether they came out of the cache. Raises NodeError, and CancelledError when stopped."""
    policy = step.node.cache
    if policy is None:
        return await _behind_bulkhead(step, call, shared, flow), False
    question = _question(step, call, policy)
    known = await shared.results.get(question)
    if known is not None:
        return known, True
    outputs = await _behind_bulkhead(step, call, shared, flow)
    await shared.results.put(question, outputs, timedelta(milliseconds=policy.ttl_ms))
    return outputs, False


def _question(step: Step, call: NodeCall[Any], policy: CachePolicy) -> Question:
    asked: JSONValue = dict(call.inputs)
    if policy.key is not None:
        try:
            asked = evaluate(policy.key, call.inputs)
        except ExpressionError as mistake:
            raise node_error(ErrorKind.INVALID_INPUT, f"cache.key: {mistake}") from None
    print_ = fingerprint(step.type.type, step.node.config, asked)
    return Question(app=call.tools.app, node_type=step.type.type, fingerprint=print_)


async def _behind_bulkhead(step: Step, call: NodeCall[Any], shared: Shared, flow: str) -> Mapping[str, JSONValue]:
    rule = step.node.bulkhead
    if rule is None:
        return await _through_breaker(step, call, shared, flow)
    try:
        async with shared.bulkheads.place(f"{call.tools.app}\n{rule.key}", rule):
            return await _through_breaker(step, call, shared, flow)
    except BulkheadFull:
        raise node_error(
            ErrorKind.UPSTREAM,
            f'bulkhead "{rule.key}" is full: {rule.max_concurrent} nodes run behind it now; retry, or set when_full: '
            '"wait"',
            bulkhead=rule.key,
        ) from None


async def _through_breaker(step: Step, call: NodeCall[Any], shared: Shared, flow: str) -> Mapping[str, JSONValue]:
    rule = step.node.circuit_breaker
    if rule is None:
        return await _within_limit(step, call)
    target = rule.key or step.config.target(call.inputs) or f"{flow}/{step.id}"
    key = f"{call.tools.app}\n{target}"
    admission = await shared.breakers.admit(key, rule)
    if isinstance(admission, Refused):
        raise _open_circuit(target, rule, admission)
    verdict: Verdict = "says nothing"
    try:
        outputs = await _within_limit(step, call)
        verdict = "worked"
    except NodeError as failure:
        verdict = "says nothing" if failure.error.kind in _NOT_THE_TARGETS else "failed"
        raise
    finally:
        await shared.breakers.report(key, rule, epoch=admission.epoch, verdict=verdict)
    return outputs


def _open_circuit(target: str, rule: CircuitBreaker, refused: Refused) -> NodeError:
    seconds = refused.retry_after.total_seconds()
    return node_error(
        ErrorKind.UPSTREAM,
        f'the circuit of "{target}" is open, as calls to it kept failing; it is tried again in {seconds:.1f} s',
        circuit=target,
        circuit_state="open",
        retry_after_ms=round(seconds * 1000),
    )


async def _within_limit(step: Step, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    # Of a node that runs alone the wait for a place does not count: whoever gives it one keeps the time.
    limit = step.config.engine_limit() if step.place == "inline" else None
    try:
        if limit is None:
            return _checked(await step.work.run(call))
        async with asyncio.timeout(limit.total_seconds()) as deadline:
            return _checked(await step.work.run(call))
    except (NodeError, Park):
        raise
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _crash(step, call, cancelled) from cancelled  # nobody cancelled this task: the node did it to itself
    except Exception as bug:  # a node's code may raise anything; that must end its node, not the worker
        if isinstance(bug, TimeoutError) and limit is not None and deadline.expired():
            raise too_long(limit, raise_with="timeout_ms in its config") from None
        raise _crash(step, call, bug) from bug


def _checked(outputs: object) -> Mapping[str, JSONValue]:
    """Make sure that a node, which may be anyone's, gave its output ports."""
    if not isinstance(outputs, Mapping):
        raise TypeError(f"it returned {type(outputs).__name__}, not a mapping of output ports")
    return outputs


def _crash(step: Step, call: NodeCall[Any], bug: BaseException) -> NodeError:
    log.error("node.crashed", run_id=call.tools.run_id, node_id=step.id, node_type=step.type.type, exc_info=bug)
    message = f"the node type {step.type.type} crashed: {type(bug).__name__}: {bug}"
    return NodeError(RunError(kind=ErrorKind.INTERNAL, message=message))
