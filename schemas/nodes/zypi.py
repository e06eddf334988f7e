"""FlowEngine's node type for its own sandbox; here it runs in a box, as sandbox.exec does."""

from __future__ import annotations

from pydantic import Field

from schemas.nodes.boxed import PROCESS_MODES, BoxedConfig, Command
from schemas.nodes.sandbox import SANDBOX_EXEC
from schemas.nodes.shell import COMMAND_PORTS, STDIN_PORTS
from schemas.nodes.spec import NodeType, Port


class ZypiConfig(BoxedConfig):
    command: Command = Field(description="a program and its arguments; a string is cut at its spaces")
    workdir: str = Field(default="", description="folder to start in")
    url: str = Field(default="", description="where FlowEngine's sandbox was; not used")
    image: str = Field(default="", description="not used: commands find the system of this machine")
    session_id: str | None = Field(default=None, description="given back as it is; every command has a fresh box")
    vcpus: float | None = Field(default=None, gt=0, le=256, description="FlowEngine's name for cpus")

    def argv(self) -> tuple[str, ...]:
        """Give the program and its arguments."""
        return tuple(self.command.split() if isinstance(self.command, str) else self.command)


ZYPI_EXEC = NodeType(
    type="zypi.exec",
    category="process",
    description="Runs a command in a box of its own, for FlowEngine's documents; its exit code fails nothing.",
    inputs=(
        *STDIN_PORTS,
        Port(name="files", type="object", description='put into the work folder: name to text, or to {"base64": ...}'),
        Port(name="session_id", type="string", description="given back as it is"),
    ),
    outputs=(
        *COMMAND_PORTS,
        Port(name="duration_ms", type="integer", description="how long it ran"),
        Port(name="session_id", type="string", description="the one that was given"),
    ),
    open_inputs=True,
    config=ZypiConfig,
    example={"command": ["python3", "-c", "print(6 * 7)"], "timeout": 10},
    repeatable=SANDBOX_EXEC.repeatable,
    modes=PROCESS_MODES,
)
