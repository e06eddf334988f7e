"""Every table, with the columns' meaning where the name does not say it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Text, false, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from schemas.json import JSONObject, JSONValue, dumps, loads

_MICROSECOND = 1_000_000

#: Conditions of partial indexes. SQLite uses one only for a query that says the same, with literals.
IN_LINE = "status = 'queued' AND blocked_by IS NOT NULL"
KEYED = "status = 'queued' AND concurrency_key IS NOT NULL"
OPEN_CHILD = "child_run IS NOT NULL AND answered_at IS NULL"


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as whole microseconds since 1970 so that SQLite and Postgres compare alike."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value.timestamp() * _MICROSECOND)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value / _MICROSECOND, UTC)


@dataclass(frozen=True, slots=True)
class Written:
    """A value that is JSON text already."""

    text: str


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Stands in a row for a value that is kept in `blobs`."""

    digest: str


#: Begins the text of a reference; no JSON text begins so.
_REFERENCE = "@"


class Json(TypeDecorator[Any]):
    """A user's JSON as text: exactly what was given comes back, on every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if type(value) is Written:
            return value.text
        return f"{_REFERENCE}{value.digest}" if type(value) is BlobRef else dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return BlobRef(value[1:]) if value.startswith(_REFERENCE) else loads(value)


class Table(DeclarativeBase):
    """The root of all tables."""


class AppRow(Table):
    """A tenant."""

    __tablename__ = "apps"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Instant)
    #: What its operator allows it, as `schemas.app.AppLimits` reads it.
    limits: Mapped[JSONObject] = mapped_column(Json, default=dict)
    #: Whether `limits` bound how many of its runs may start, so that claims must count.
    gated: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    #: `limits.key_concurrency`, kept apart for queries.
    key_concurrency: Mapped[int] = mapped_column(Integer, default=1, server_default="1")


class AppStartRow(Table):
    """One start of a run of an app with a rate limit: the starts are numbered, so that one look-up tells the next."""

    __tablename__ = "app_starts"

    app: Mapped[str] = mapped_column(String(100), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)


class KeyRow(Table):
    """An API key; only its SHA-256 is kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    #: None for an admin key.
    app: Mapped[str | None] = mapped_column(String(100))
    scopes: Mapped[list[str]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)


class ServerSecretRow(Table):
    """A secret that all replicas of the server share, e.g. the one that signs poll tokens."""

    __tablename__ = "server_secrets"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Instant)


class FlowRow(Table):
    """A flow's name and its newest version."""

    __tablename__ = "flows"

    app: Mapped[str] = mapped_column(String(100), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    latest_version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    #: Retired flows keep their history and start nothing new.
    retired_at: Mapped[datetime | None] = mapped_column(Instant)


class FlowVersionRow(Table):
    """One pushed document; never changes."""

    __tablename__ = "flow_versions"

    app: Mapped[str] = mapped_column(String(100), primary_key=True)
    flow: Mapped[str] = mapped_column(String(200), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    content_hash: Mapped[str] = mapped_column(String(64))
    document: Mapped[JSONObject] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (ForeignKeyConstraint(["app", "flow"], ["flows.app", "flows.name"]),)


class EventRow(Table):
    """A way to start a flow."""

    __tablename__ = "events"

    app: Mapped[str] = mapped_column(String(100), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    flow: Mapped[str] = mapped_column(String(200))
    #: None follows the newest version.
    version: Mapped[int | None] = mapped_column(Integer)
    config: Mapped[JSONObject] = mapped_column(Json)
    #: A webhook's path, kept apart from config for look-up.
    path: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    paused_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (Index("ix_events_path", "app", "path", sqlite_where=text("path IS NOT NULL")),)


class ScheduleRow(Table):
    """When a schedule event is due next; the tick moves it forward in the transaction that makes the run."""

    __tablename__ = "schedules"

    app: Mapped[str] = mapped_column(String(100), primary_key=True)
    event: Mapped[str] = mapped_column(String(200), primary_key=True)
    #: None while paused, or when no further time exists.
    next_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    last_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (ForeignKeyConstraint(["app", "event"], ["events.app", "events.name"], ondelete="CASCADE"),)


class DeliveryRow(Table):
    """One webhook request as it came in."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    app: Mapped[str] = mapped_column(String(100))
    path: Mapped[str] = mapped_column(String(500))
    method: Mapped[str] = mapped_column(String(10))
    headers: Mapped[JSONObject] = mapped_column(Json)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(Instant)
    #: The sender's own id for this delivery: a repeat answers with the first one.
    dedupe_key: Mapped[str | None] = mapped_column(String(300))

    __table_args__ = (Index("uq_deliveries_dedupe", "app", "path", "dedupe_key", unique=True),)


class RunRow(Table):
    """One execution of a flow version. This row is the truth; `attempt` is the fence."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    app: Mapped[str] = mapped_column(String(100))
    flow: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(Integer)
    event: Mapped[str | None] = mapped_column(String(200))
    lane: Mapped[str] = mapped_column(String(20))
    worker_group: Mapped[str | None] = mapped_column(String(60))
    status: Mapped[str] = mapped_column(String(20))
    #: Attempts made so far. A write that names another number than this is refused.
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    #: The number of the last attempt that may be made.
    max_attempts: Mapped[int] = mapped_column(Integer)
    #: Attempts made before the run was last redriven.
    attempts_before: Mapped[int] = mapped_column(Integer, default=0)
    priority: Mapped[int] = mapped_column(Integer, default=5)
    #: What the caller asked for (`mode`), or None for the worker's own default.
    mode: Mapped[str | None] = mapped_column(String(30))
    backend_config: Mapped[JSONObject | None] = mapped_column(Json)
    #: What the newest attempt was handed to.
    executor: Mapped[str | None] = mapped_column(String(30))
    payload: Mapped[JSONValue] = mapped_column(Json)
    result: Mapped[JSONValue] = mapped_column(Json)
    error: Mapped[JSONObject | None] = mapped_column(Json)
    #: The worker that has it, while it is running.
    owner: Mapped[str | None] = mapped_column(String(40))
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    concurrency_key: Mapped[str | None] = mapped_column(String(300))
    #: What a queued run stands in line for, in words for a person; None until a claim of it was put off.
    blocked_by: Mapped[str | None] = mapped_column(Text)
    #: When a run in line was last called to a place that came free; None while it waits for one.
    called_at: Mapped[datetime | None] = mapped_column(Instant)
    idempotency_key: Mapped[str | None] = mapped_column(String(300))
    #: SHA-256 of the request that carried the idempotency key.
    request_hash: Mapped[str | None] = mapped_column(String(64))
    retry_of: Mapped[str | None] = mapped_column(String(40))
    #: The run that started this one, by a flow.call or a node in a pod, and how many such starts lead here.
    parent_run: Mapped[str | None] = mapped_column(String(40))
    depth: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    #: Of a run that is one node, alone in a pod: which of its flow's. Its payload is what the node is given.
    node: Mapped[str | None] = mapped_column(String(200))
    delivery_id: Mapped[str | None] = mapped_column(String(40))
    #: The number of the newest run event.
    last_seq: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Instant)
    #: Not before this time: the caller's wish, the end of a pause between attempts, or when a parked run goes on.
    run_at: Mapped[datetime | None] = mapped_column(Instant)
    #: When its message last went to the broker.
    published_at: Mapped[datetime | None] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (
        Index("ix_runs_app", "app", "id"),
        Index("uq_runs_idempotency", "app", "event", "idempotency_key", unique=True),
        Index("ix_runs_queued", "lane", "published_at", **_where("status = 'queued'")),
        # Both a heartbeat's question (by owner, of few rows) and a limit's (by app and key): one index to keep.
        Index("ix_runs_running", "app", "concurrency_key", "owner", **_where("status = 'running'")),
        Index("ix_runs_line", "app", "priority", "created_at", "id", **_where(IN_LINE)),
        Index("ix_runs_dead", "id", **_where("status = 'dead'")),
        Index("ix_runs_waiting", "run_at", **_where("status = 'waiting'")),
        Index("ix_runs_key", "app", "concurrency_key", "priority", "created_at", "id", **_where(KEYED)),
    )


class WaitpointRow(Table):
    """Something outside that a run waits for, or will: an answer, a decision, the end of a child."""

    __tablename__ = "waitpoints"

    #: SHA-256 of the token that answers it; of a child, see `schemas.waitpoint.child_waitpoint`.
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(40))
    node_id: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(20))
    #: What a person who decides is shown.
    message: Mapped[str | None] = mapped_column(Text)
    opened_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    #: The run whose end is awaited.
    child_run: Mapped[str | None] = mapped_column(String(40))
    answered_at: Mapped[datetime | None] = mapped_column(Instant)
    #: What came before the run was parked; once it is in the run's events, it is gone from here.
    answer: Mapped[JSONObject | None] = mapped_column(Json)
    #: Whether the answer is in the run's events.
    heard: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())

    __table_args__ = (
        Index("ix_waitpoints_run", "run_id"),
        Index("ix_waitpoints_child", "child_run", **_where(OPEN_CHILD)),
    )


class AttemptRow(Table):
    """One try at a run."""

    __tablename__ = "attempts"

    run_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    worker: Mapped[str] = mapped_column(String(40))
    executor: Mapped[str | None] = mapped_column(String(30))
    started_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    #: A final run status, `retry`, `waiting`, or `lost` when its worker died.
    outcome: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)


class LoanRow(Table):
    """An attempt that is executed where the death of its worker does not end it: it has a lease of its own."""

    __tablename__ = "loans"

    run_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    #: The executor that has it, as `mode` names it.
    backend: Mapped[str] = mapped_column(String(30), index=True)
    #: How it is known there: a Job's name, a request's id.
    handle: Mapped[str] = mapped_column(String(300))
    #: Nobody else may have the run before this time: at first, when it must have begun; each call-back moves it on.
    until: Mapped[datetime] = mapped_column(Instant)
    #: What it takes to execute it, as an executor reads it.
    order: Mapped[JSONObject] = mapped_column(Json)
    #: The process that took the order: no other gets it.
    taken_by: Mapped[str | None] = mapped_column(String(200))


class RunEventRow(Table):
    """One numbered line of a run's history; also its checkpoint."""

    __tablename__ = "run_events"

    run_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str] = mapped_column(String(20))
    node_id: Mapped[str | None] = mapped_column(String(200))
    time: Mapped[datetime] = mapped_column(Instant)
    data: Mapped[JSONObject] = mapped_column(Json)

    __table_args__ = ({"sqlite_with_rowid": False},)


class OutboxRow(Table):
    """A message that must reach its lane; deleted once the broker has it."""

    __tablename__ = "outbox"

    run_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    #: The attempt that the message asks for: a late receipt for an older message never deletes a newer one.
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    #: The whole job, as `schemas.job.Job` reads it.
    job: Mapped[JSONObject] = mapped_column(Json)
    #: When to publish; in the future for `run_at` and for pauses between attempts.
    due_at: Mapped[datetime] = mapped_column(Instant, index=True)
    #: Written when a run in line was called: a late receipt for the message before must not delete it.
    called: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())


class BlobRow(Table):
    """A large value of an app's runs, as JSON text."""

    __tablename__ = "blobs"

    #: SHA-256 of the app's name and the content.
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    #: Whether `body` is compressed (zlib).
    deflated: Mapped[bool] = mapped_column(Boolean)
    #: The content's length in bytes.
    size: Mapped[int] = mapped_column(Integer)
    #: When a run last came to refer to it.
    touched_at: Mapped[datetime] = mapped_column(Instant)


class RunBlobRow(Table):
    """A run, or one of its events, refers to a blob."""

    __tablename__ = "run_blobs"

    run_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class CircuitRow(Table):
    """How much a target is trusted by the nodes of an app that call it."""

    __tablename__ = "circuits"

    #: SHA-256 of the app and the target.
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[JSONObject] = mapped_column(Json)
    changed_at: Mapped[datetime] = mapped_column(Instant)


class KeptResultRow(Table):
    """What a node gave, kept for those who ask the same again."""

    __tablename__ = "kept_results"

    #: SHA-256 of the app, the node type and the question's fingerprint.
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    app: Mapped[str] = mapped_column(String(100))
    node_type: Mapped[str] = mapped_column(String(200))
    outputs: Mapped[JSONObject] = mapped_column(Json)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)

    __table_args__ = (Index("ix_kept_results_app", "app", "node_type"),)


class DeadMessageRow(Table):
    """A message that no worker could read, kept as it came."""

    __tablename__ = "dead_messages"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    #: `redis`, `sqs` or `kafka`.
    carrier: Mapped[str] = mapped_column(String(20))
    lane: Mapped[str] = mapped_column(String(200))
    #: Its beginning, at most `dispatch.store.dead_messages.LONGEST` bytes.
    body: Mapped[bytes] = mapped_column(LargeBinary)
    #: Its whole length in bytes.
    size: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(Instant, index=True)


class WorkerRow(Table):
    """A worker and its heartbeat: the lease on every run that it owns."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    #: As Celery and Flower name it.
    hostname: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    lanes: Mapped[list[str]] = mapped_column(Json)
    concurrency: Mapped[int] = mapped_column(Integer)
    #: What stands between its runs' code and its machine; None of a worker that did not say.
    execution_mode: Mapped[str | None] = mapped_column(String(40))
    started_at: Mapped[datetime] = mapped_column(Instant)
    heartbeat_at: Mapped[datetime] = mapped_column(Instant, index=True)
    stopped_at: Mapped[datetime | None] = mapped_column(Instant)


class LeaderRow(Table):
    """A job of which one replica at a time does the work (tick, relay, reaper)."""

    __tablename__ = "leaders"

    duty: Mapped[str] = mapped_column(String(30), primary_key=True)
    holder: Mapped[str] = mapped_column(String(40))
    until: Mapped[datetime] = mapped_column(Instant)
