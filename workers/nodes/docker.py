"""docker.run: an image in a container of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from schemas.json import JSONValue
from schemas.nodes.docker import DockerConfig
from workers.nodes.boxed import command_ports, fail_unless_zero, limits_of, stdin_of, to_the_end
from workers.nodes.node import NodeCall
from workers.sandboxes.containers import ImageOrder


class DockerRun:
    """Run the image; its lines become log events as they come."""

    async def run(self, call: NodeCall[DockerConfig]) -> Mapping[str, JSONValue]:
        config = call.config
        order = ImageOrder(
            image=config.image,
            entrypoint=config.entrypoint(),
            argv=config.argv(),
            app=call.tools.app,
            run_id=call.tools.run_id,
            attempt=call.tools.attempt,
            limits=limits_of(config),
            stdin=stdin_of(call.inputs),
            env=config.env,
            cwd=config.cwd,
            network=config.network,
        )
        found = await to_the_end(call, partial(call.tools.containers.run_image, order), stream=config.stream_output)
        if config.fail_on_error:
            fail_unless_zero(found)
        return command_ports(found)
