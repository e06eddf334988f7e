"""Node types that run a user's code in a sandbox."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from schemas.flow import Whole
from schemas.nodes.spec import NodeConfig, NodeType, Port

#: Limit on a code node that names none.
DEFAULT_CODE_TIMEOUT = timedelta(seconds=30)


class CodeConfig(NodeConfig):
    code: str = Field(
        min_length=1, max_length=1_000_000, description="an ES or CommonJS module; its default export is called"
    )
    #: Below 8 MB V8 itself does not start.
    memory_mb: Whole = Field(default=128, ge=8, le=2048, description="heap limit of the isolate")
    max_output_bytes: Whole = Field(
        default=1_000_000, ge=1, le=100_000_000, description="limit on what it returns, as JSON"
    )

    def engine_limit(self) -> None:
        """The sandbox holds the code to `wall_clock`, which does not count the wait for a free one."""

    @property
    def wall_clock(self) -> timedelta:
        return self.limit or DEFAULT_CODE_TIMEOUT


CODE_JAVASCRIPT = NodeType(
    type="code.javascript",
    category="code",
    description="Runs a JavaScript function of the inputs in a V8 isolate of its own.",
    outputs=(
        Port(name="output", description="what the function returned; each key of a returned object is a port too"),
    ),
    open_inputs=True,
    open_outputs=True,
    config=CodeConfig,
    example={"code": "export default ({name}) => ({text: `hello ${name}`})", "timeout_ms": 1000, "memory_mb": 64},
)
