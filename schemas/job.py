"""The message on a queue: small, a pointer to rows, never the truth."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.run import Lane


class JobKind(StrEnum):
    RECURRING = "recurring"
    WEBHOOK = "webhook"
    FLOW = "flow"

    @property
    def task_name(self) -> str:
        """The Celery task that carries this kind, as Flower shows it."""
        return f"flo.{self}"


class Job(BaseModel):
    """Ask any worker to attempt a run. Losing or doubling this message changes nothing that is promised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    kind: JobKind
    run_id: str
    app: str
    #: The attempt that the publisher expects to be made; part of the task id, so that Flower tells retries apart.
    attempt: int = 1
    #: 0 is the most urgent, 9 the least.
    priority: int = 5
    #: Worker group, e.g. `gpu`; the lane is then `flow.gpu`.
    group: str | None = None

    @property
    def task_id(self) -> str:
        return f"{self.run_id}.{self.attempt}"

    @property
    def queue(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else str(self.kind)

    @property
    def lane(self) -> Lane:
        return Lane(str(self.kind))
