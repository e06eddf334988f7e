"""wait.url, wait.webhook and wait.approval. None of them waits here: they end the attempt, and are asked again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from schemas.json import JSONObject, JSONValue
from schemas.nodes.wait import ApprovalConfig, UrlConfig, WaitConfig
from schemas.outcome import ErrorKind, Wait, WaitKind
from schemas.run import EventType
from schemas.waitpoint import PATH, is_token, new_token, opening, waitpoint_of
from workers.nodes.node import NodeCall, Park, Waits, node_error, too_long


class WaitUrl:
    """Open a waitpoint. It has effects (someone may be told of it), so it is on record before anything follows."""

    async def run(self, call: NodeCall[UrlConfig]) -> Mapping[str, JSONValue]:
        waits_of(call)
        token = new_token()
        url = call.tools.public_url + PATH + token
        opens = opening(waitpoint_of(token), WaitKind(call.config.kind))
        call.emit(EventType.DATA, {"port": "url", "value": url, "waitpoint": opens})
        return {"url": url, "token": token, "data": call.inputs.get("data", call.config.data)}


class WaitWebhook:
    """Wait for any request, and pass on what it brought."""

    async def run(self, call: NodeCall[WaitConfig]) -> Mapping[str, JSONValue]:
        answer = wait_for_answer(call, WaitKind.WEBHOOK)
        return {"timed_out": True} if answer is None else {**answer, "timed_out": False}


class WaitApproval:
    """Wait for a person's decision."""

    async def run(self, call: NodeCall[ApprovalConfig]) -> Mapping[str, JSONValue]:
        answer = wait_for_answer(call, WaitKind.APPROVAL)
        return {"approved": False, "timed_out": True} if answer is None else {**answer, "timed_out": False}


def wait_for_answer(call: NodeCall[WaitConfig] | NodeCall[ApprovalConfig], kind: WaitKind) -> JSONObject | None:
    """Give what came to the node's waitpoint; None when its time is up and the flow is to go on. Else raise Park."""
    waits = waits_of(call)
    note = waits.begun or _begin(call, waits, kind)
    waitpoint, until = str(note["waitpoint"]), _moment(note["until"])
    answer = waits.answer(waitpoint)
    if answer is not None:
        return answer
    if not waits.is_over(until):
        url, message = str(note["url"]), note.get("message")
        shown = message if isinstance(message, str) else None
        raise Park(Wait(node_id=call.node_id, kind=kind, until=until, waitpoint=waitpoint, url=url, message=shown))
    if call.config.on_timeout == "continue":
        return None
    assert call.config.limit is not None  # without one, no time is ever over
    raise too_long(call.config.limit, raise_with="timeout_ms in its config")


def waits_of(call: NodeCall[UrlConfig] | NodeCall[WaitConfig] | NodeCall[ApprovalConfig]) -> Waits:
    if call.waits is None:
        raise node_error(
            ErrorKind.INVALID_INPUT,
            "a run can't be parked here: wait nodes work in a flow that a server runs, and not inside flow.map, "
            'flow.race or an inline flow.call; move it out, or call its flow with flow.call and mode: "run"',
        )
    return call.waits


def _begin(call: NodeCall[WaitConfig] | NodeCall[ApprovalConfig], waits: Waits, kind: WaitKind) -> JSONObject:
    given = call.inputs.get("token")
    token = new_token() if given is None else _trusted(cast(str, given), waits)
    url = call.tools.public_url + PATH + token
    limit = call.config.limit
    until = None if limit is None else (datetime.now(UTC) + limit).isoformat()
    note: JSONObject = {"waitpoint": waitpoint_of(token), "until": until, "url": url}
    if isinstance(call.config, ApprovalConfig):
        note["message"] = call.inputs.get("message", call.config.message)
    waits.begin(note, port="url", value=url, opens=(waitpoint_of(token), kind))
    return note


def _trusted(token: str, waits: Waits) -> str:
    """Take a token that a wait.url of this run has made, and no other: a caller who names one could answer himself."""
    if not is_token(token) or not waits.has_opened(waitpoint_of(token)):
        raise node_error(
            ErrorKind.INVALID_INPUT,
            "token is none that a wait.url node of this run has made; connect its port token, or leave it out",
            port="token",
        )
    return token


def _moment(text: JSONValue) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
