"""`python -m scheduler api` serves HTTP; `python -m scheduler tick` runs schedules, the relay and the reaper."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from dispatch.telemetry.logs import configure_logs
from schemas.errors import FloError
from schemas.settings import Settings, load_settings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flo scheduler", description="Everything that puts jobs in.")
    commands = parser.add_subparsers(dest="command", required=True)
    api = commands.add_parser("api", help="serve the HTTP API and webhooks")
    api.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    api.add_argument("--port", type=_port, default=8080, help="0 takes any free one (default: %(default)s)")
    commands.add_parser("tick", help="run schedules, publish what was left behind, find lost runs")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings()
        configure_logs(settings)
        if given.command == "api":
            from scheduler.serve import serve_api

            serve_api(settings, host=given.host, port=given.port)
        else:
            asyncio.run(_tick(settings))
    except FloError as error:
        print(f"flo {given.command}: {error}", file=sys.stderr)
        return 2
    return 0


async def _tick(settings: Settings) -> None:
    from dispatch.bell import open_bell
    from dispatch.queues.celery_app import control_url
    from scheduler.loops import run_duties
    from scheduler.spine import open_spine

    bell = open_bell(control_url(settings), topics=())  # it rings, and follows nothing
    async with open_spine(settings, bell=bell) as spine:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, spine.stopping.set)
        print("flo tick: running schedules", flush=True)
        await run_duties(spine)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; allowed: 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
