"""What the nodes that run commands and Python share: limits, log lines, stdin, and the ports of a command."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, assert_never

import orjson

from schemas.errors import Refused
from schemas.json import JSONObject, JSONValue, dumps, loads_foreign
from schemas.nodes.boxed import BoxedConfig
from schemas.outcome import ErrorKind
from workers.nodes.node import NodeCall, NodeError, node_error
from workers.sandboxes.box.base import BoxLimits, CommandOrder, CommandOutcome, Exited, OnOutput, Stopped, ignore_output

#: Lines of one node that become log events; the ports have all of them.
MOST_LINES = 2000
#: Characters of a line that a log event shows.
LONGEST_LINE = 4096
#: What an error's details keep of each stream.
_TAIL = 2000
_LEVELS = {"stdout": "info", "stderr": "warning"}


def limits_of(config: BoxedConfig) -> BoxLimits:
    return BoxLimits(
        timeout=config.wall_clock,
        memory_mb=config.memory_mb,
        pids=config.pids,
        cpus=config.cpus,
        cpu_seconds=config.cpu_seconds,
        file_size_mb=config.file_size_mb,
        tmp_mb=config.tmp_mb,
        max_output_bytes=config.max_output_bytes,
    )


class OutputLog:
    """Makes log events of lines, as they come, up to a number: every event is a row."""

    def __init__(self, call: NodeCall[Any]) -> None:
        self._call = call
        self._told = 0

    def __call__(self, stream: str, line: bytes) -> None:
        self._told += 1
        if self._told > MOST_LINES:
            if self._told == MOST_LINES + 1:
                self._call.log("warning", f"more than {MOST_LINES:,} lines: the rest is not shown here")
            return
        text = line.decode("utf-8", "replace").rstrip("\r")
        shown = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}… ({len(text) - LONGEST_LINE} more)"
        self._call.log(_LEVELS[stream], shown)


def stdin_of(inputs: Mapping[str, JSONValue]) -> bytes:
    """Give what a command reads: `stdin` as it is when it is text, else `input`, as JSON."""
    if "stdin" in inputs:
        given = inputs["stdin"]
        return (given if isinstance(given, str) else dumps(given)).encode("utf-8", "replace")
    return dumps(inputs["input"]).encode() if "input" in inputs else b""


async def run_command(
    call: NodeCall[Any], order: CommandOrder, *, stream: bool = True, contained: bool = False
) -> Exited:
    """Run the command to its end; a limit or a fault that stopped it is the node's error.

    `contained` gives it a container in place of a box.
    """
    place = call.tools.containers if contained else call.tools.box
    return await to_the_end(call, partial(place.run, order), stream=stream)


async def to_the_end(
    call: NodeCall[Any], run: Callable[[OnOutput], Awaitable[CommandOutcome]], *, stream: bool = True
) -> Exited:
    """Have something run to its end, wherever it does; a limit or a fault that stopped it is the node's error."""
    on_output: OnOutput = OutputLog(call) if stream else ignore_output
    try:
        outcome = await run(on_output)
    except Refused as refused:
        raise node_error(ErrorKind.INVALID_INPUT, str(refused)) from None
    match outcome:
        case Exited():
            return outcome
        case Stopped():
            raise stopped(outcome, call)
        case _:
            assert_never(outcome)


def stopped(outcome: Stopped, call: NodeCall[Any]) -> NodeError:
    """Make the error of what was stopped, with the end of what it wrote, naming the limit as this config does."""
    error = outcome.error
    details: JSONObject = {**(error.details or {}), **_tails(outcome)}
    if details.get("raise_with") == "timeout_ms" and call.config.timeout is not None:
        limit = call.config.timeout
        details |= {"limit": limit, "raise_with": "timeout"}
        error = error.model_copy(
            update={"message": f"ran longer than its limit of {limit:g} s; use less or raise timeout"}
        )
    return NodeError(error.model_copy(update={"details": details or None}))


def command_ports(found: Exited, *, strip: bool = True) -> JSONObject:
    """Give FlowEngine's ports of a command that ran to its end."""
    stdout, stderr = (_text(stream, strip=strip) for stream in (found.stdout, found.stderr))
    try:
        output = loads_foreign(found.stdout)
    except orjson.JSONDecodeError:
        output = stdout
    return {
        "output": output, "stdout": stdout, "stderr": stderr, "exit_code": found.code, "success": found.code == 0,
    }  # fmt: skip


def fail_unless_zero(found: Exited) -> None:
    """Raise what a command's exit code other than 0 means, with its last words."""
    if found.code == 0:
        return
    ended = f"exited with code {found.code}" if found.code > 0 else f"was ended by signal {-found.code}"
    last = (found.stderr.strip() or found.stdout.strip()).rpartition(b"\n")[2].decode("utf-8", "replace")[:300]
    raise node_error(
        ErrorKind.USER,
        f"the command {ended}{f': {last}' if last else ''}; set fail_on_error: false to go on all the same",
        exit_code=found.code,
        **_tails(found),
    )


def milliseconds(time: timedelta) -> int:
    return math.ceil(time / timedelta(milliseconds=1))


def _text(stream: bytes, *, strip: bool) -> str:
    """Read what was written; at most one line's end is taken off."""
    text = stream.decode("utf-8", "replace")
    return text.removesuffix("\n").removesuffix("\r") if strip else text


def _tails(outcome: Exited | Stopped) -> JSONObject:
    streams = {"stdout": outcome.stdout, "stderr": outcome.stderr}
    return {name: said[-_TAIL:].decode("utf-8", "replace") for name, said in streams.items() if said}
