"""What may be set for every node that runs commands or Python in a box of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from schemas.flow import Whole
from schemas.nodes.spec import NodeConfig
from schemas.settings import ExecutionMode

#: The modes that have a place for commands and Python; SANDBOX_CODE_ONLY has none.
PROCESS_MODES = frozenset(
    {ExecutionMode.SANDBOX_CODE_AND_PROCESS, ExecutionMode.SANDBOX_PROCESS, ExecutionMode.UNSANDBOXED}
)
#: Limit on a command or a Python that names none.
DEFAULT_PROCESS_TIMEOUT = timedelta(seconds=60)


def _one_nul_free(words: Any) -> Any:
    if any("\0" in word for word in ([words] if isinstance(words, str) else words)):
        raise ValueError("has a NUL, which no program can be given")
    return words


def _nameable(name: str) -> str:
    if "=" in name or "\0" in name:
        raise ValueError("the name of a variable has neither = nor NUL")
    return name


def _as_text(value: Any) -> Any:
    """Take a number or a boolean for its text, as FlowEngine's documents have them; anything else is left as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


#: What a shell runs, or a program and its arguments.
Command = Annotated[str | list[str], Field(min_length=1), AfterValidator(_one_nul_free)]
Words = Annotated[list[str], AfterValidator(_one_nul_free)]
Variable = Annotated[str, BeforeValidator(_as_text), AfterValidator(_one_nul_free)]
VariableName = Annotated[str, Field(min_length=1), AfterValidator(_nameable)]


class BoxedConfig(NodeConfig):
    """The limits of one box; each is named as errors name it."""

    memory_mb: Whole = Field(default=256, ge=16, le=65_536, description="all memory of the box, scratch space included")
    pids: Whole = Field(default=64, ge=1, le=4096, description="processes and threads at once")
    cpus: float = Field(default=1.0, gt=0, le=256, description="processors that may be used at once")
    cpu_seconds: float | None = Field(default=None, gt=0, description="processor time of all its processes together")
    file_size_mb: Whole = Field(default=64, ge=1, le=65_536, description="size of one file")
    tmp_mb: Whole = Field(default=64, ge=1, le=65_536, description="scratch space: work folder, /tmp and /dev/shm")
    max_output_bytes: Whole = Field(
        default=1_000_000,
        ge=1,
        le=100_000_000,
        description="limit on stdout and stderr together, and on what is returned",
    )
    env: dict[VariableName, Variable] = Field(default={}, description="environment variables")

    def engine_limit(self) -> None:
        """The box holds what runs in it to `wall_clock`."""

    @property
    def wall_clock(self) -> timedelta:
        return self.limit or DEFAULT_PROCESS_TIMEOUT
