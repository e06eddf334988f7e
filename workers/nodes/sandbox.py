"""sandbox.exec and zypi.exec: any command, files in and files out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace

from schemas.json import JSONObject, JSONValue, dumps
from schemas.nodes.sandbox import SandboxConfig
from schemas.nodes.zypi import ZypiConfig
from schemas.outcome import ErrorKind
from workers.nodes.boxed import command_ports, fail_unless_zero, limits_of, milliseconds, run_command, stdin_of
from workers.nodes.node import NodeCall, node_error
from workers.sandboxes.box.base import NO_EGRESS, CommandOrder

#: How FlowEngine names an input that is a file.
_FILE_INPUT = "file:"


class SandboxExec:
    """Run the command, then bring out the files that were asked for."""

    async def run(self, call: NodeCall[SandboxConfig]) -> Mapping[str, JSONValue]:
        config = call.config
        order = CommandOrder(
            argv=config.argv(),
            app=call.tools.app,
            limits=limits_of(config),
            stdin=stdin_of(call.inputs),
            env=config.env,
            files=_files_in(call.inputs.get("files")),
            collect=tuple(config.collect),
            cwd=config.cwd,
            egress=call.tools.egress if config.network == "app" else NO_EGRESS,
        )
        found = await run_command(call, order, contained=config.sandbox == "docker")
        if config.fail_on_error:
            fail_unless_zero(found)
        files: JSONObject = {name: _content_out(content) for name, content in found.files.items()}
        duration = milliseconds(found.usage.wall)
        return {**command_ports(found), "files": files, "missing": dict(found.missing), "duration_ms": duration}


class ZypiExec:
    """Run a command as FlowEngine's sandbox did: inputs that are text or numbers are variables, `file:x` are files."""

    async def run(self, call: NodeCall[ZypiConfig]) -> Mapping[str, JSONValue]:
        config, inputs = call.config, call.inputs
        named = {
            name.removeprefix(_FILE_INPUT): value for name, value in inputs.items() if name.startswith(_FILE_INPUT)
        }
        limits = limits_of(config)
        order = CommandOrder(
            argv=config.argv(),
            app=call.tools.app,
            limits=replace(limits, cpus=config.vcpus) if config.vcpus else limits,
            stdin=stdin_of(inputs),
            env={**_variables(inputs), **config.env},
            files={**_files_in(inputs.get("files")), **_files_in(named)},
            cwd=config.workdir,
            egress=call.tools.egress,
        )
        if config.image:
            call.log("debug", f'image "{config.image}" is not used: the command runs in a box of this machine')
        found = await run_command(call, order)
        ports = {**command_ports(found), "duration_ms": milliseconds(found.usage.wall)}
        session = inputs.get("session_id", config.session_id)
        return ports if session is None else {**ports, "session_id": session}


def _variables(inputs: Mapping[str, JSONValue]) -> dict[str, str]:
    scalars = {name: value for name, value in inputs.items() if isinstance(value, str | int | float)}
    return {
        name.upper(): value if isinstance(value, str) else dumps(value)
        for name, value in scalars.items()
        if name.isidentifier() and name not in ("stdin", "input", "payload", "session_id")
    }


def _files_in(given: JSONValue | Mapping[str, JSONValue]) -> dict[str, bytes]:
    """Read the port `files`: text, {"base64": ...}, or any other value as JSON."""
    if not isinstance(given, Mapping):
        return {}
    return {name: _content_in(name, value) for name, value in given.items()}


def _content_in(name: str, value: JSONValue) -> bytes:
    match value:
        case str():
            return value.encode("utf-8", "replace")
        case {"base64": str(text), **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error as mistake:
                raise node_error(ErrorKind.INVALID_INPUT, f'file "{name}" is not base64: {mistake}') from None
        case _:
            return dumps(value).encode()


def _content_out(content: bytes) -> JSONValue:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
