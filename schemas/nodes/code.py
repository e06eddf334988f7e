"""Node types that run a user's code in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pydantic import Field, field_validator

from schemas.flow import Whole
from schemas.nodes.spec import NodeConfig, NodeType, Port, PushLimits, Refusal
from schemas.npm import is_exact, is_name

#: Limit on a code node that names none.
DEFAULT_CODE_TIMEOUT = timedelta(seconds=30)
#: npm packages that one node may name.
MAX_DEPENDENCIES = 50


class SandboxedConfig(NodeConfig):
    """What may be set for everything that runs in a V8 isolate."""

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


class CodeConfig(SandboxedConfig):
    code: str = Field(
        min_length=1, max_length=1_000_000, description="an ES or CommonJS module; its default export is called"
    )
    dependencies: dict[str, str] = Field(
        default={},
        max_length=MAX_DEPENDENCIES,
        description='npm packages that the code imports, each with one exact version: {"lodash": "4.17.21"}',
    )

    @field_validator("dependencies")
    @classmethod
    def _exact(cls, value: dict[str, str]) -> dict[str, str]:
        for name, version in value.items():
            if not is_name(name):
                raise ValueError(f'"{name}" is not the name of an npm package')
            if not is_exact(version):
                raise ValueError(f'"{name}" needs one exact version, like "1.2.3", so that every run is the same code')
        return value

    def refusals(self, limits: PushLimits) -> Iterator[Refusal]:
        for name, version in self.dependencies.items():
            if why := limits.npm.refusal(name, version):
                yield Refusal(key=f"dependencies.{name}", message=why, fix=limits.npm.fix(name, version))


_OUTPUT = Port(name="output", description="what the function returned; each key of a returned object is a port too")

CODE_JAVASCRIPT = NodeType(
    type="code.javascript",
    category="code",
    description="Runs a JavaScript function of the inputs in a V8 isolate of its own.",
    outputs=(_OUTPUT,),
    open_inputs=True,
    open_outputs=True,
    config=CodeConfig,
    example={"code": "export default ({name}) => ({text: `hello ${name}`})", "timeout_ms": 1000, "memory_mb": 64},
)

CODE_TYPESCRIPT = NodeType(
    type="code.typescript",
    category="code",
    description="Runs a TypeScript function of the inputs in a V8 isolate of its own; types are not checked.",
    outputs=(_OUTPUT,),
    open_inputs=True,
    open_outputs=True,
    config=CodeConfig,
    example={"code": "export default ({name}: {name: string}) => ({text: `hello ${name}`})"},
)
