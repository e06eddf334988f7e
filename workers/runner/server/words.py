"""What a worker and an executor say to each other over HTTP, in the words of `wire.py`. No I/O.

An order is one JSON object (`Order`). What is told of its attempt is lines of JSON, numbered from 1 without gaps:
    {"seq", "say": "event", "type", "data", "node_id", "time"}
    {"seq", "say": "flush"}            wait until the lines before are durable; `POST .../saved?seq=` says that they are
    {"seq", "say": "done", "outcome"}  last of all
    {"say": "alive"}                   without a number: the attempt goes on, and has nothing to say
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from schemas.app import AppLimits
from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue
from workers.executors.base import RunOrder
from workers.runner import wire
from workers.runner.channel import line_of

#: How a time is said (`clock.py`).
CLOCK = r"^[0-9a-f]{1,64}:-?[0-9]{1,15}(\.[0-9]{1,9})?$"
#: Seconds between two words of an attempt that has nothing to say.
ALIVE_EVERY = 2.0
NDJSON = "application/x-ndjson"


class Order(BaseModel):
    """One attempt at a run, as it is sent to an executor."""

    model_config = ConfigDict(extra="forbid")

    run_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")
    app: str
    flow: str
    version: int
    attempt: int = Field(ge=1)
    document: FlowDocument
    payload: SkipValidation[JSONValue] = Field(default_factory=dict)
    backend_config: JSONObject = Field(default_factory=dict)
    #: What earlier attempts have done, in the words of `wire.happening_to`.
    past: SkipValidation[list[dict[str, Any]]] = Field(default_factory=list)
    #: What the app's operator allows, as far as it is about boxes.
    limits: AppLimits = AppLimits()
    #: Seconds for which the sender holds the attempt unless it says more (`POST /hold`); None is until it ends.
    hold_s: float | None = Field(default=None, gt=0, le=3600)
    #: The same as a time of this executor's own clock (`clock.py`), which counts however late the order is read.
    held_until: str | None = Field(default=None, pattern=CLOCK)
    #: The sender says when lines are durable; else nobody does, and the attempt does not wait for it.
    confirms: bool = False

    def as_run_order(self) -> RunOrder:
        """Raises ValueError, LookupError or TypeError when the past is none."""
        return RunOrder(
            run_id=self.run_id,
            app=self.app,
            flow=self.flow,
            version=self.version,
            attempt=self.attempt,
            document=self.document,
            payload=self.payload,
            backend_config=self.backend_config,
            past=[wire.happening_from(said) for said in self.past],
        )


class Held(BaseModel):
    """A worker's word on the attempts that it still holds."""

    model_config = ConfigDict(extra="forbid")

    runs: list[tuple[str, int]] = Field(max_length=100_000)
    for_s: float = Field(gt=0, le=3600)
    #: As `held_until` of an order.
    until: str | None = Field(default=None, pattern=CLOCK)


def order_words(order: RunOrder, limits: AppLimits) -> JSONObject:
    """Say an order, without for how long it is held."""
    return {
        "run_id": order.run_id,
        "app": order.app,
        "flow": order.flow,
        "version": order.version,
        "attempt": order.attempt,
        "document": order.document.model_dump(mode="json"),
        "payload": order.payload,
        "backend_config": order.backend_config,
        "past": [wire.happening_to(said) for said in order.past],
        "limits": limits.model_dump(mode="json", include={"execution_mode", "egress"}),
    }


def order_to(order: RunOrder, limits: AppLimits, *, hold_s: float, held_until: str | None = None) -> bytes:
    """Write an order as a worker sends it that listens, and says for how long it holds the attempt."""
    return line_of({**order_words(order, limits), "hold_s": hold_s, "held_until": held_until, "confirms": True})


ALIVE = line_of({"say": "alive"}) + b"\n"
