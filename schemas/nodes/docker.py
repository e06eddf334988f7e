"""The node type that runs an image in a container of its own."""

from __future__ import annotations

import shlex

from pydantic import Field, model_validator

from schemas.nodes.boxed import BoxedConfig, Command
from schemas.nodes.shell import COMMAND_PORTS, SHELL, STDIN_PORTS
from schemas.nodes.spec import NodeType


class DockerConfig(BoxedConfig):
    image: str = Field(min_length=1, max_length=500, description="an image that the operator allows")
    command: Command | None = Field(
        default=None,
        description="as for docker run: words, or a string that is cut into them; else the image's own",
    )
    script: str | None = Field(default=None, min_length=1, description=f"what {SHELL} of the image runs")
    cwd: str = Field(default="", description="folder to start in; /work and /tmp can be written")
    stdin: str | None = Field(default=None, description="used when no connection brings one")
    network: bool = Field(default=False, description="wants the network that the operator has for containers")
    stream_output: bool = Field(default=True, description="tell each line as a log event while the command runs")
    fail_on_error: bool = Field(default=True, description="an exit code other than 0 fails the node")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> DockerConfig:
        if self.command is not None and self.script is not None:
            raise ValueError("command and script both say what to run; keep one of them")
        self.argv()  # a string that can't be cut into words is a mistake of now, not of the run
        return self

    def entrypoint(self) -> tuple[str, ...] | None:
        """Give what runs in place of the image's entrypoint; None leaves that."""
        return None if self.script is None else (SHELL, "-c", self.script)

    def argv(self) -> tuple[str, ...] | None:
        """Give what the entrypoint is given; None leaves it to the image."""
        if isinstance(self.command, str):
            return tuple(shlex.split(self.command))
        return None if self.command is None else tuple(self.command)


DOCKER_RUN = NodeType(
    type="docker.run",
    category="process",
    description="Runs an image in a container of its own, without network or rights, and gives what it wrote.",
    inputs=STDIN_PORTS,
    outputs=COMMAND_PORTS,
    config=DockerConfig,
    example={"image": "alpine:3.20", "script": "tr a-z A-Z", "memory_mb": 64, "timeout_ms": 10_000},
    repeatable=False,
)
