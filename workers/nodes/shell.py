"""shell.exec: a command of the machine's shell, in a box of its own."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.json import JSONValue
from schemas.nodes.shell import ShellConfig
from workers.nodes.boxed import command_ports, fail_unless_zero, limits_of, run_command, stdin_of
from workers.nodes.node import NodeCall
from workers.sandboxes.box.base import CommandOrder


class ShellExec:
    """Run the command; its lines become log events as they come.

    Every try has a fresh box, and finds in /tmp what the one before it left there, as it would without boxes.
    """

    async def run(self, call: NodeCall[ShellConfig]) -> Mapping[str, JSONValue]:
        config = call.config
        order = CommandOrder(
            argv=config.argv(),
            app=call.tools.app,
            limits=limits_of(config),
            stdin=stdin_of(call.inputs),
            env=config.env,
            cwd=config.start_in,
            tmp=call.tools.left_in_tmp.pop(call.node_id, {}),
            keeps_tmp=config.fail_on_error,
            egress=call.tools.egress,
        )
        found = await run_command(call, order, stream=config.stream_output)
        if found.tmp:
            call.tools.left_in_tmp[call.node_id] = found.tmp
        if config.fail_on_error:
            fail_unless_zero(found)
        ports = command_ports(found, strip=config.strip_trailing_newline)
        if not config.capture_stdout:
            ports |= {"stdout": "", "output": None}
        if not config.capture_stderr:
            ports["stderr"] = ""
        return ports
