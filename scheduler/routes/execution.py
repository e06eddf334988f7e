"""Call-backs of executors elsewhere. They show the token of one attempt, and may do nothing but speak for it.

One that no worker waits for asks for its order here, tells what happens, says every now and then that it lives, and
says how it ended. Each word makes its loan last longer (`dispatch/store/loans.py`).

The numbers of an attempt's events go on where the run's history ended when it was handed over. So a batch that is sent
again changes nothing, and a gap is refused. Once another attempt has the run, or it is over, the answer says so and
nothing is written: the executor must stop.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SkipValidation
from starlette.responses import Response

from dispatch.claims import LostClaim
from dispatch.run_tokens import RunRight, key_id_of, read_with_key, read_with_secret
from dispatch.store.loans import end_loans, renew, take_order
from dispatch.store.standing import Standing, read_standing
from scheduler.auth import bearer_of
from scheduler.problem import Unauthenticated
from scheduler.requests import read_body
from scheduler.routes.docs import PROBLEMS, json_body
from scheduler.spine import Spine, spine_of
from scheduler.views import answer
from schemas.errors import Conflict, NotFound
from schemas.json import JSONObject
from schemas.outcome import Outcome, Parked
from schemas.outcome_words import outcome_from
from schemas.run import EventType, Happening, RunEvent

router = APIRouter(prefix="/execution", tags=["execution"], responses=PROBLEMS)

#: Events in one batch.
MOST = 10_000
#: Seconds for which an executor may go on with the keys that it has read.
_KEYS_LAST = 60
#: Parts of a loan after which an executor says that it lives, and after which, unheard, it stops.
_RENEW, _STOP = 0.25, 0.8
#: What an attempt may tell; that it began and how it ended is the dispatcher's to tell.
_TOLD = frozenset(
    {
        EventType.NODE_STARTED, EventType.NODE_COMPLETED, EventType.NODE_FAILED, EventType.NODE_RETRYING,
        EventType.LOG, EventType.PROGRESS, EventType.DATA,
    }
)  # fmt: skip

Told = Annotated[EventType, Field(description=f"one of {', '.join(sorted(_TOLD))}")]


class RemoteEvent(BaseModel):
    """One thing that happened in an attempt."""

    model_config = ConfigDict(extra="forbid")

    seq: int = Field(ge=1, le=2**31 - 1, description="its number in the run's history")
    type: Told
    time: AwareDatetime
    node_id: str | None = Field(default=None, max_length=200)
    data: SkipValidation[JSONObject] = Field(default_factory=dict)


class EventsBody(BaseModel):
    """Events of an attempt, without gaps."""

    model_config = ConfigDict(extra="forbid")

    events: list[RemoteEvent] = Field(max_length=MOST)


class ProgressBody(BaseModel):
    """A sign of life, and how far the attempt is."""

    model_config = ConfigDict(extra="forbid")

    percent: float | None = Field(default=None, ge=0, le=100)
    message: str | None = Field(default=None, max_length=2000)


class OrderBody(BaseModel):
    """Who asks for an order."""

    model_config = ConfigDict(extra="forbid")

    executor: str = Field(
        min_length=1, max_length=200, description="names the process that asks: no other gets the order after it"
    )


class Lent(BaseModel):
    """An attempt, for the one process that executes it."""

    order: dict[str, Any] = Field(description="what `flo executor` takes at POST /execute")
    last_seq: int = Field(description="the number of the newest event: the attempt's own go on from here")
    renew_s: float = Field(description="seconds after which to post progress, unless events were posted")
    stop_s: float = Field(description="seconds without an accepted word after which to stop: the run goes to another")


class OutcomeBody(BaseModel):
    """How an attempt ended."""

    model_config = ConfigDict(extra="forbid")

    outcome: SkipValidation[dict[str, Any]] = Field(
        description='e.g. {"is": "succeeded", "result": 1}, {"is": "failed", "error": {"kind", "message", "node_id"}}, '
        '{"is": "cancelled", "reason"}, {"is": "retry", "after_ms", "reason"}, {"is": "parked", "waits"}'
    )
    last_seq: int = Field(ge=0, description="the number of its last event")


class Accepted(BaseModel):
    """Whether the attempt's word counted."""

    accepted: bool
    status: str = Field(description="the run's real status")
    last_seq: int = Field(description="the number of the newest event")
    cancel: str | None = Field(description="why the run is to be stopped, if it is")


@router.get(
    "/.well-known/jwks.json",
    summary="The public keys of run tokens (RFC 7517)",
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
    response_model=None,
    openapi_extra={"security": []},
)
async def jwks(request: Request) -> Response:
    ring = await spine_of(request).run_keys.ring()
    return answer(ring.jwks(), headers={"Cache-Control": f"public, max-age={_KEYS_LAST}"})


@router.post(
    "/order",
    summary="Take the order of an attempt that no worker waits for",
    responses={200: {"model": Lent}},
    response_model=None,
    openapi_extra=json_body(OrderBody),
)
async def order(request: Request) -> Response:
    spine = spine_of(request)
    right = await _admit(spine, request)
    body = await read_body(request, OrderBody)
    lasts = spine.settings.loan
    taken = await spine.store.transact(
        partial(
            take_order, run_id=right.run_id, attempt=right.attempt, by=body.executor, until=datetime.now(UTC) + lasts
        )
    )
    standing = await _standing(spine, right)
    seconds = lasts.total_seconds()
    return answer(
        {
            "order": taken,
            "last_seq": standing.claim.last_seq,
            "renew_s": seconds * _RENEW,
            "stop_s": seconds * _STOP,
        }
    )


@router.post(
    "/events",
    summary="Tell what happened in an attempt",
    responses={200: {"model": Accepted}},
    response_model=None,
    openapi_extra=json_body(EventsBody),
)
async def events(request: Request) -> Response:
    spine = spine_of(request)
    right = await _admit(spine, request)
    body = await read_body(request, EventsBody)
    standing = await _standing(spine, right)
    if not standing.is_held_by(right.attempt):
        return _answer(standing, accepted=False)
    _check(body.events, after=standing.claim.last_seq)
    told = [_event(right.run_id, one) for one in body.events]
    try:
        await spine.writer.append(standing.claim, told, repeated=True)
    except LostClaim:
        return _answer(await _standing(spine, right), accepted=False)
    await _renew(spine, right)
    return _answer(await _standing(spine, right), accepted=True)


@router.post(
    "/progress",
    summary="Ask whether an attempt still has its run, and tell how far it is",
    responses={200: {"model": Accepted}},
    response_model=None,
    openapi_extra=json_body(ProgressBody, required=False),
)
async def progress(request: Request) -> Response:
    spine = spine_of(request)
    right = await _admit(spine, request)
    await read_body(request, ProgressBody)
    await _renew(spine, right)
    standing = await _standing(spine, right)
    return _answer(standing, accepted=standing.is_held_by(right.attempt))


@router.post(
    "/outcome",
    summary="Tell how an attempt ended",
    responses={200: {"model": Accepted}},
    response_model=None,
    openapi_extra=json_body(OutcomeBody),
)
async def outcome(request: Request) -> Response:
    spine = spine_of(request)
    right = await _admit(spine, request)
    body = await read_body(request, OutcomeBody)
    ended = _outcome(body.outcome)
    standing = await _standing(spine, right)
    if not standing.is_held_by(right.attempt):
        return _answer(standing, accepted=False)
    if body.last_seq != standing.claim.last_seq:
        raise Conflict(
            f"the attempt says that its last event is {body.last_seq}, and the history ends at "
            f"{standing.claim.last_seq}; send the events that are missing first"
        )
    try:
        await spine.writer.record(standing.claim, ended, events=(), last_seq=body.last_seq)
    except LostClaim:
        return _answer(await _standing(spine, right), accepted=False)
    await spine.store.transact(partial(end_loans, run_ids=[right.run_id]))
    return _answer(await _standing(spine, right), accepted=True)


def _outcome(said: dict[str, Any]) -> Outcome:
    try:
        told = outcome_from(said)
    except (ValueError, LookupError, TypeError, AttributeError) as mistake:
        raise Conflict(f"`outcome` is none of those that this route documents: {mistake!r}") from mistake
    if isinstance(told, Parked) and not told.waits:
        raise Conflict("`outcome` parks the run without anything to wait for; name at least one of `waits`")
    return told


async def _renew(spine: Spine, right: RunRight) -> None:
    until = datetime.now(UTC) + spine.settings.loan
    await spine.store.transact(partial(renew, run_id=right.run_id, attempt=right.attempt, until=until))


async def _admit(spine: Spine, request: Request) -> RunRight:
    """Tell for which attempt the request speaks. Raises Unauthenticated."""
    token = bearer_of(request)
    right = await _read(spine, token) if token is not None else None
    if right is None:
        raise Unauthenticated(
            "the request carries no run token that is good here; send Authorization: Bearer <the token of the attempt>",
            headers={"WWW-Authenticate": 'Bearer realm="flo"'},
        )
    return right


async def _read(spine: Spine, token: str) -> RunRight | None:
    key = await spine.run_keys.public_key(key_id_of(token))
    shared = spine.settings.executor_key
    right = None
    if key is not None:
        right = read_with_key(token, key)
    elif shared is not None:
        right = read_with_secret(token, shared.get_secret_value())
    return right if isinstance(right, RunRight) else None


async def _standing(spine: Spine, right: RunRight) -> Standing:
    async with spine.store.read() as connection:
        standing = await read_standing(connection, right.run_id)
    if standing is None or standing.claim.app != right.app:
        raise NotFound(f"run {right.run_id} is no longer kept; stop executing it")
    return standing


def _check(events: list[RemoteEvent], *, after: int) -> None:
    """Raise Conflict unless the numbers go on where the history ends, or begin before it and leave none out."""
    numbers = [one.seq for one in events]
    if numbers and (numbers[0] > after + 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers)))):
        raise Conflict(
            f"the events are numbered {numbers[0]} to {numbers[-1]} ({len(numbers)} of them), and the history ends at "
            f"{after}; send them without gaps, from {after + 1} at the latest"
        )
    untold = sorted({one.type for one in events} - _TOLD)
    if untold:
        raise Conflict(f"an executor can't tell {', '.join(untold)}: that is for the worker that has the run")


def _event(run_id: str, told: RemoteEvent) -> RunEvent:
    time: datetime = told.time
    return RunEvent(run_id, told.seq, Happening(told.type, told.data, told.node_id, time))


def _answer(standing: Standing, *, accepted: bool) -> Response:
    claim = standing.claim
    return answer(
        {
            "accepted": accepted,
            "status": str(standing.status),
            "last_seq": claim.last_seq,
            "cancel": claim.cancel_reason,
        }
    )
