"""The node type that runs any command with files in, files out and limits of its own."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.flow import Part
from schemas.nodes.boxed import PROCESS_MODES, BoxedConfig, Command
from schemas.nodes.shell import COMMAND_PORTS, SHELL, STDIN_PORTS
from schemas.nodes.spec import NodeType, Port


def _decodable(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as mistake:
        raise ValueError(f"is not base64: {mistake}") from None
    return value


class Bytes(Part):
    """A file that is no text."""

    base64: Annotated[str, AfterValidator(_decodable)]


FileContent = str | Bytes


class SandboxConfig(BoxedConfig):
    command: Command = Field(description=f"a string that {SHELL} runs, or a program and its arguments")
    cwd: str = Field(default="", description="folder to start in, below the work folder")
    stdin: str | None = Field(default=None, description="used when no connection brings one")
    files: dict[str, FileContent] | None = Field(
        default=None, description='put into the work folder: name to text, or to {"base64": ...}'
    )
    collect: list[str] = Field(default=[], max_length=1000, description="files of the work folder to give as `files`")
    network: Literal["none", "app"] = Field(
        default="none", description="app: as far as the operator lets this app reach out"
    )
    fail_on_error: bool = Field(default=True, description="an exit code other than 0 fails the node")
    sandbox: Literal["namespace", "docker"] = Field(
        default="namespace", description="docker: a container of the runner image in place of a box"
    )

    def argv(self) -> tuple[str, ...]:
        """Give the program and its arguments."""
        return (SHELL, "-c", self.command) if isinstance(self.command, str) else tuple(self.command)


FILE_PORTS = (
    Port(name="files", type="object", description='collected files: name to text, or to {"base64": ...}'),
    Port(name="missing", type="object", description="files that could not be collected: name to the reason"),
    Port(name="duration_ms", type="integer", description="how long it ran"),
)

SANDBOX_EXEC = NodeType(
    type="sandbox.exec",
    category="process",
    description="Runs any command in a box of its own, without network unless asked, and gives back files.",
    inputs=(
        *STDIN_PORTS,
        Port(name="files", type="object", description='put into the work folder: name to text, or to {"base64": ...}'),
    ),
    outputs=(*COMMAND_PORTS, *FILE_PORTS),
    config=SandboxConfig,
    example={
        "command": "sort names.txt > sorted.txt",
        "files": {"names.txt": "bo\nal\n"},
        "collect": ["sorted.txt"],
        "memory_mb": 64,
    },
    repeatable=False,
    modes=PROCESS_MODES,
)
