"""The node type that runs a shell command; its config and ports are FlowEngine's."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pydantic import Field, model_validator

from schemas.nodes.boxed import PROCESS_MODES, BoxedConfig, Command, Words
from schemas.nodes.spec import NodeType, Port, PushLimits, Refusal

SHELL = "/bin/sh"

STDIN_PORTS = (
    Port(name="stdin", description="what the command reads: a string as it is, anything else as JSON"),
    Port(name="input", description="the same, always as JSON; used when stdin is not given"),
)
COMMAND_PORTS = (
    Port(name="output", description="stdout as JSON, when it is JSON; else as text"),
    Port(name="stdout", type="string", description="what it wrote to stdout"),
    Port(name="stderr", type="string", description="what it wrote to stderr"),
    Port(name="exit_code", type="integer", description="its exit code, or minus the signal that ended it"),
    Port(name="success", type="boolean", description="whether the exit code is 0"),
)


class ShellConfig(BoxedConfig):
    command: Command = Field(description="a string that a shell runs, or a program and its arguments")
    args: Words | str | None = Field(
        default=None, description="arguments; with them, command is a program and no shell reads it"
    )
    shell: str | bool | None = Field(default=None, description="the shell to use; false reads command as plain words")
    cwd: str | None = Field(default=None, min_length=1, description="folder to start in, below the work folder")
    workdir: str | None = Field(default=None, min_length=1, description="FlowEngine's name for cwd")
    stdin: str | None = Field(default=None, description="used when no connection brings one")
    stream_output: bool = Field(default=True, description="tell each line as a log event while the command runs")
    strip_trailing_newline: bool = True
    capture_stdout: bool = True
    capture_stderr: bool = True
    fail_on_error: bool = Field(default=True, description="an exit code other than 0 fails the node")
    env_passthrough: bool | list[str] = Field(default=False, description="FlowEngine's; the worker's is never shown")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> ShellConfig:
        if self.cwd is not None and self.workdir is not None:
            raise ValueError("cwd and workdir both say where to start; keep one of them")
        if isinstance(self.command, list) and (self.args is not None or self.shell):
            raise ValueError("command is a list of words already; leave out args and shell")
        self.argv()  # a string that can't be cut into words is a mistake of now, not of the run
        return self

    def argv(self) -> tuple[str, ...]:
        """Give the program and its arguments."""
        if isinstance(self.command, list):
            return tuple(self.command)
        words = tuple(self.args.split() if isinstance(self.args, str) else self.args or ())
        if self.shell:
            line = " ".join((self.command, *map(shlex.quote, words)))
            return (self.shell if isinstance(self.shell, str) else SHELL, "-c", line)
        if words or self.args is not None:
            return (self.command, *words)
        if self.shell is False:
            return tuple(shlex.split(self.command))
        return (SHELL, "-c", self.command)

    @property
    def start_in(self) -> str:
        return self.cwd or self.workdir or ""

    def refusals(self, limits: PushLimits) -> Iterator[Refusal]:
        if self.env_passthrough:
            yield Refusal(
                key="env_passthrough",
                message="a flow never sees the worker's environment",
                fix="leave env_passthrough out and name what the command needs in env",
            )


SHELL_EXEC = NodeType(
    type="shell.exec",
    category="process",
    description="Runs a command and gives what it wrote; an exit code other than 0 fails the node.",
    inputs=STDIN_PORTS,
    outputs=COMMAND_PORTS,
    config=ShellConfig,
    example={"command": "tr a-z A-Z | head -n $LINES", "env": {"LINES": "3"}, "timeout_ms": 5000},
    repeatable=False,
    modes=PROCESS_MODES,
)
