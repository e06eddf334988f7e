"""flow.call: another flow, inside this run or as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from schemas.json import JSONObject, JSONValue
from schemas.nodes.call import CallConfig
from schemas.outcome import ChildCall, ErrorKind, RunError, Wait, WaitKind
from workers.nodes.inner import result_or_error
from workers.nodes.node import NodeCall, NodeError, Park, Waits, node_error, too_long

#: Ends of a child that are no failure of the caller's own kind: nobody cancelled the caller, no sandbox of it was lost.
_NOT_OURS = (ErrorKind.CANCELLED, ErrorKind.LOST)


class FlowCall:
    """Call the flow, and give what it gives."""

    async def run(self, call: NodeCall[CallConfig]) -> Mapping[str, JSONValue]:
        payload = call.inputs["payload"] if "payload" in call.inputs else dict(call.inputs)
        result = await _inline(call, payload) if call.config.mode == "inline" else _as_run(call, payload)
        return {**result, "output": result} if isinstance(result, dict) else {"output": result}


async def _inline(call: NodeCall[CallConfig], payload: JSONValue) -> JSONValue:
    flow = call.config.flow
    if call.inner is None:
        why = call.config.unlinked or "only a server knows other flows; call it with `flo invoke`, not `flo run`"
        raise node_error(ErrorKind.INVALID_INPUT, f'flow "{flow}" can\'t be called: {why}')
    ended = result_or_error(await call.inner.run("document", payload, label=flow), f'flow "{flow}"')
    if isinstance(ended, RunError):
        raise NodeError(ended)
    return ended[0]


def _as_run(call: NodeCall[CallConfig], payload: JSONValue) -> JSONValue:
    """Give the result of the run that this node has started; else raise Park, which starts it."""
    if call.waits is None:
        raise node_error(
            ErrorKind.INVALID_INPUT,
            'a flow.call with mode: "run" parks its run, which can\'t be done inside flow.map, flow.race or an inline '
            'flow.call, nor without a server; set mode: "inline"',
        )
    waitpoint = call.waits.child()
    ended = call.waits.answer(waitpoint)
    if ended is None:
        until = _until(call, call.waits)
        if call.waits.is_over(until) and call.config.limit is not None:
            raise too_long(call.config.limit, raise_with="timeout_ms in its config")
        child = ChildCall(flow=call.config.flow, version=call.config.version, payload=payload)
        raise Park(Wait(node_id=call.node_id, kind=WaitKind.CHILD, until=until, waitpoint=waitpoint, child=child))
    if ended["status"] != "succeeded":
        raise _failed(call.config.flow, ended)
    return ended["result"]


def _until(call: NodeCall[CallConfig], waits: Waits) -> datetime | None:
    if call.config.limit is None:
        return None
    if waits.begun is not None:
        return datetime.fromisoformat(str(waits.begun["until"]))
    until = datetime.now(UTC) + call.config.limit
    waits.begin({"until": until.isoformat()}, port="until", value=until.isoformat(), opens=None)
    return until


def _failed(flow: str, ended: JSONObject) -> NodeError:
    error = RunError.model_validate(ended["error"])
    run_id = ended.get("run_id")
    where = f'the run of flow "{flow}" ({run_id})' if run_id else f'flow "{flow}"'
    at = f', node "{error.node_id}"' if error.node_id else ""
    details: JSONObject = {**(error.details or {}), "status": ended["status"], "run_id": run_id}
    kind = ErrorKind.UPSTREAM if error.kind in _NOT_OURS else error.kind
    return NodeError(RunError(kind=kind, message=f"{where}{at}: {error.message}", details=details))
