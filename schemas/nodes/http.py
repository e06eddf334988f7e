"""The node type that calls other machines over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.flow import NodePlace, Whole
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port, PushLimits, Refusal

#: Limit on a request that names none.
DEFAULT_HTTP_TIMEOUT = timedelta(seconds=30)
#: Largest response body that a node may ask for, in bytes.
MAX_RESPONSE_BYTES = 10 * 1024 * 1024

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class HttpConfig(NodeConfig):
    method: Method = "GET"
    url: str | None = Field(
        default=None, min_length=1, max_length=8192, description="used when no connection brings one"
    )
    headers: dict[str, str] | None = Field(default=None, description="used when no connection brings them")
    body: JSONValue = Field(default=None, description="a string is sent as it is, anything else as JSON")
    #: `json` as a field's name would hide a method of pydantic's.
    json_body: JSONValue = Field(default=None, alias="json", description="always sent as JSON")
    follow_redirects: bool = True
    fail_on_status: bool = Field(default=False, description="a status of 400 or more fails the node")
    max_response_bytes: Whole = Field(default=MAX_RESPONSE_BYTES, ge=1, le=MAX_RESPONSE_BYTES)
    execution_mode: NodePlace = Field(
        default="inline", description="the same as the key of that name beside `config`; alone, the cap does not hold"
    )

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_body(self) -> HttpConfig:
        bodies = {"body", "json_body"} & self.model_fields_set
        if len(bodies) == 2:
            raise ValueError("body and json both say what to send; keep one of them")
        if bodies and self.method in ("GET", "HEAD"):
            raise ValueError(f'a {self.method} request carries no body; set method: "POST", or leave body and json out')
        return self

    def place(self) -> NodePlace | None:
        return self.execution_mode if "execution_mode" in self.model_fields_set else None

    def engine_limit(self) -> None:
        """The node holds itself to its limit, as the operator's cap may be lower."""

    def target(self, inputs: Mapping[str, JSONValue]) -> str | None:
        with contextlib.suppress(ValueError):
            return urlsplit(str(inputs.get("url", ""))).netloc.rpartition("@")[2].lower() or None
        return None

    def refusals(self, limits: PushLimits) -> Iterator[Refusal]:
        cap = limits.max_inline_http
        if self.execution_mode == "inline" and self.limit is not None and self.limit > cap:
            yield Refusal(
                key="timeout_ms" if self.timeout_ms is not None else "timeout",
                message=f"timeout is {self.limit.total_seconds():g} s, "
                f"but inline HTTP nodes are capped at {cap.total_seconds():g} s here",
                fix='set execution_mode: "sandbox" to lift the cap',
            )


HTTP_REQUEST = NodeType(
    type="http.request",
    category="network",
    description="Sends one HTTP request and gives the response, whatever its status.",
    inputs=(
        Port(name="url", type="string", required=True, description="http or https address"),
        Port(name="headers", type="object", description="request headers"),
        Port(name="body", description="what to send: a string as it is, anything else as JSON"),
        Port(name="json", description="what to send, always as JSON"),
    ),
    outputs=(
        Port(name="status", type="integer", description="status code"),
        Port(name="body", type="string", description="response body as text"),
        Port(name="headers", type="object", description="response headers, names in lower case"),
        Port(name="json", description="the body as JSON, when it is JSON"),
    ),
    config=HttpConfig,
    example={"method": "POST", "url": "https://example.com/orders", "json": {"id": 1}, "timeout_ms": 10_000},
    repeatable=False,
)
