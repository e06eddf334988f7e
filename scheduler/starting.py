"""From an event and a request to an accepted run: what every way of starting a flow has in common."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

from dispatch.store.batch import Accepted
from dispatch.store.runs import NewRun
from dispatch.store.triggers import Target, list_events
from scheduler.modes import check_wish
from scheduler.pods import check_pod
from scheduler.problem import Gone
from scheduler.spine import Spine
from schemas.app import AppLimits
from schemas.errors import Conflict, Invalid, NotFound, Problem, Refused
from schemas.json import JSONObject, JSONValue, to_bytes
from schemas.run import Lane
from schemas.settings import ExecutorName
from schemas.wording import did_you_mean, listed

#: The mode that only tracks: the run is written down, and nothing takes it but the caller.
LOCAL = "local"

#: Modes that an app may ask for unless its operator says otherwise (`limits.modes` of the app).
DEFAULT_MODES = (str(ExecutorName.INLINE), str(ExecutorName.NAMESPACE), LOCAL)

MODES = (LOCAL, *(str(name) for name in ExecutorName))

#: Longest Idempotency-Key, in characters.
LONGEST_KEY = 255


def _known_mode(mode: str) -> str:
    if mode not in MODES:
        raise ValueError(f"unknown mode; allowed: {listed(MODES)}")
    return mode


Mode = Annotated[str, AfterValidator(_known_mode), WithJsonSchema({"type": "string", "enum": list(MODES)})]


class InvokeBody(BaseModel):
    """How to run a flow now; every field may be left out."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"payload": {"name": "Ada"}, "priority": 3}}
    )

    #: What the roots of the flow get. Parsed from JSON already, so not walked through once more.
    payload: SkipValidation[JSONValue] = Field(default_factory=dict)
    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="a pushed version; else the event's own")
    mode: Mode | None = Field(default=None, description="what the run is handed to; `local` only tracks it")
    backend_config: JSONObject | None = None
    priority: int = Field(default=5, ge=0, le=9, description="0 is the most urgent")
    run_at: AwareDatetime | None = Field(default=None, description="not before this time (with its offset from UTC)")
    concurrency_key: str | None = Field(default=None, pattern=r"^[^\x00]+$", max_length=300)


async def find_target(spine: Spine, app: str, event: str) -> Target:
    """Find what an event starts. Raises NotFound, Gone (flow retired) or Conflict (event paused)."""
    target = await spine.targets.of_event(app, event)
    if target is None:
        raise await no_such_event(spine, app, event)
    check_open(target)
    return target


def check_open(target: Target) -> None:
    """Raise Gone when the flow is retired, Conflict while the event is paused."""
    if target.retired:
        raise Gone(f'the flow "{target.flow}" is retired and starts nothing new; push it again to bring it back')
    if target.paused:
        raise Conflict(
            f'the event "{target.event}" is paused; resume it by '
            f"POST /api/v1/apps/{target.app}/events/{target.event}/resume"
        )


async def no_such_event(spine: Spine, app: str, event: str) -> NotFound:
    """Word that an event is not there, with the one that was probably meant."""
    async with spine.store.read() as connection:
        rows, _ = await list_events(connection, app, kind=None, cursor=None, limit=1000)
    names = [row["name"] for row in rows]
    fix = did_you_mean(event, names) or f"create it: PUT /api/v1/apps/{app}/events/{event}"
    return NotFound(f'app "{app}" has no event "{event}"; {fix}')


async def start(
    spine: Spine, target: Target, body: InvokeBody, *, lane: Lane, mode: str | None, idempotency_key: str | None
) -> Accepted:
    """Accept a run and send it on its way. `mode` is the server's own choice when the body makes none.

    Raises NotFound (no such version), Refused (mode not allowed), Invalid (a Job says not what it takes) or Conflict
    (key used for another request).
    """
    version = target.version
    if body.version is not None and body.version != version:
        if not await spine.targets.has_version(target.app, target.flow, body.version):
            raise NotFound(
                f'the flow "{target.flow}" has no version {body.version}; leave it out to run version {version}'
            )
        version = body.version
    _check_mode(spine, target, body.mode)
    await check_wish(spine, target.limits, body.backend_config or {})
    await check_pod(spine, target, version, mode=body.mode or mode, backend_config=body.backend_config or {})
    new = NewRun(
        app=target.app,
        flow=target.flow,
        version=version,
        event=target.event,
        lane=lane,
        payload=body.payload,
        max_attempts=spine.settings.max_attempts,
        priority=body.priority,
        mode=body.mode or mode,
        backend_config=body.backend_config,
        concurrency_key=body.concurrency_key,
        idempotency_key=idempotency_key,
        request_hash=_hash_of(body) if idempotency_key is not None else None,
        run_at=body.run_at,
    )
    accepted = await spine.writer.accept(new, tracked_only=body.mode == LOCAL)
    if accepted.created:
        spine.figures.accepted.labels(str(lane)).inc()
        spine.ear.hear_of(accepted.run_id)
    if accepted.job is not None:
        spine.publisher.publish_soon([accepted.job])
    return accepted


def read_idempotency_key(given: str | None) -> str | None:
    """Check an Idempotency-Key header. Raises Invalid."""
    if given is None:
        return None
    if not 1 <= len(given) <= LONGEST_KEY or not given.isprintable() or given.startswith("flo:"):
        message = f'must be 1 to {LONGEST_KEY} printable characters that do not begin with "flo:"'
        raise Invalid([Problem(path="Idempotency-Key", message=message, fix="send e.g. a UUID")], what="headers")
    return given


def allowed_modes(spine: Spine, limits: AppLimits) -> tuple[str, ...]:
    """List the modes an app may ask for: its operator's list, or the default; the server's own executor always."""
    own = DEFAULT_MODES if limits.modes is None else limits.modes
    return tuple(dict.fromkeys([*own, str(spine.settings.executor)]))


def check_modes(limits: AppLimits) -> None:
    """Raise Invalid for each mode of a list that does not exist."""
    wrong = [(index, mode) for index, mode in enumerate(limits.modes or ()) if mode not in MODES]
    if wrong:
        fix = f"one of {listed(MODES)}"
        problems = [
            Problem(path=f"modes[{index}]", message=f'unknown mode "{mode}"', fix=did_you_mean(mode, MODES) or fix)
            for index, mode in wrong
        ]
        raise Invalid(problems, what="request body")


def _check_mode(spine: Spine, target: Target, mode: str | None) -> None:
    if mode is None or mode in (allowed := allowed_modes(spine, target.limits)):
        return
    raise Refused(
        f'mode is "{mode}", which the app "{target.app}" may not ask for; allowed: {listed(allowed)}. '
        "Leave mode out, or have the operator extend the app's list"
    )


def _hash_of(body: InvokeBody) -> str:
    said = body.model_dump(mode="python", exclude_defaults=True)
    return hashlib.sha256(to_bytes(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def as_text(moment: datetime | None) -> str | None:
    """Write a time as the API shows it."""
    return None if moment is None else moment.isoformat()
