"""What an operator allows an app, and holds it to."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.pod import PodAllowance
from schemas.reach import Reach, check_hosts
from schemas.settings import ExecutionMode


class RateLimit(BaseModel):
    """At most so many starts within any window of this length."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: int = Field(ge=1, le=1_000_000)
    per_seconds: float = Field(gt=0, le=86_400)


class AppLimits(BaseModel):
    """The operator's word on one app; a field left out means the server's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: What its runs may ask to be handed to (`mode` of an invocation).
    modes: tuple[str, ...] | None = None
    #: Between its code and the machine; never weaker than what the server allows.
    execution_mode: ExecutionMode | None = None
    #: Where what runs in its boxes may connect to: nowhere, any public address, or these hosts
    #: (`host`, `host:port`, `*.domain`).
    egress: Reach | None = None
    #: Executors that its runs may name in `backend_config.executor_url`, besides the server's own.
    executor_urls: tuple[str, ...] = ()
    #: Lambda functions that its runs may name in `backend_config.function`, besides the server's own.
    lambda_functions: tuple[str, ...] = ()
    #: What its runs may ask of a cluster, besides resources.
    kubernetes: PodAllowance = PodAllowance()
    #: Runs that may be under way at once, over all workers.
    max_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    #: Runs with the same `concurrency_key` that may be under way at once; 1 makes them serial.
    key_concurrency: int = Field(default=1, ge=1, le=1_000_000)
    rate_limit: RateLimit | None = None

    @field_validator("egress")
    @classmethod
    def _hosts(cls, value: Reach | None) -> Reach | None:
        return check_hosts(value) if isinstance(value, tuple) else value
