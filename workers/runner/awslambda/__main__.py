"""`python -P -m workers.runner.awslambda`: a runtime for Lambda that streams, which AWS's own for Python does not.

Started as `bootstrap` of a custom runtime, or as the command of a container image (compose/Dockerfile.lambda). A
function that is invoked without streaming gets the same lines at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator

import uvloop

from dispatch.telemetry.logs import configure_logs
from schemas.errors import FloError
from schemas.json import loads
from schemas.settings import Settings, load_settings
from workers.runner.awslambda.function import Function, open_function
from workers.runner.awslambda.runtime import Invocation, RuntimeApi
from workers.runner.awslambda.words import call_from


def main() -> int:
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if address is None:
        print("Error: AWS_LAMBDA_RUNTIME_API is not set; this program is started by Lambda", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(RuntimeApi(address)))


async def _serve(api: RuntimeApi) -> int:
    try:
        settings = load_settings()
        configure_logs(settings)
        await _take_invocations(api, settings)
    except FloError as error:
        await api.fail(error)
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


async def _take_invocations(api: RuntimeApi, settings: Settings) -> None:
    async with open_function(settings) as function:
        while True:
            invocation = await api.next()
            await api.respond(invocation, _chunks(function, invocation))


async def _chunks(function: Function, invocation: Invocation) -> AsyncIterator[bytes]:
    call = call_from(loads(invocation.event))
    async for chunk in function.stream(call, left=invocation.deadline - time.time()):
        yield chunk


if __name__ == "__main__":
    sys.exit(main())
