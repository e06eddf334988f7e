"""`flo dev`: all of Flo in one command."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from flo.home import Endpoint, Home


def dev(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = 8080,
    home: Annotated[
        Path | None,
        typer.Option(envvar="FLO_HOME", help="Where the database, queues and key are kept. [default: .flo]"),
    ] = None,
    flower_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Flower, which shows the workers; 0 picks a free one.")
    ] = 5555,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Do without Flower.")] = False,
    redis_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the embedded Redis; 0 picks a free one.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many worker processes.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Hide the lines that the processes print.")] = False,
) -> None:
    """Start everything on this machine: Redis, SQLite, API, scheduler, workers and Flower. Ctrl-C stops it all."""
    from flo.dev import preflight
    from flo.dev.plan import Choices, plan
    from flo.dev.stack import Stack
    from flo.dev.voice import Voice

    redis_url = os.environ.get("REDIS_URL") or None
    preflight.require_programs(redis=redis_url is None)
    if redis_url is not None:
        preflight.require_redis(redis_url)
    preflight.require_different(port, None if no_flower else flower_port, redis_port)
    choices = Choices(
        home=Home.of(os.environ) if home is None else Home(home.absolute()),
        port=preflight.require_port(port, "--port"),
        flower_port=None if no_flower else preflight.require_port(flower_port, "--flower-port"),
        redis_port=preflight.require_port(redis_port, "--redis-port") if redis_url is None else 0,
        redis_url=redis_url,
        workers=workers,
    )
    family = plan(choices, None if redis_url else preflight.redis_server())
    endpoint = Endpoint(api=choices.api_url, flower=choices.flower_url, pid=os.getpid())
    voice = Voice(family.names, quiet=quiet, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)

    def when_up(took: timedelta) -> None:
        choices.home.announce(endpoint)
        _panel(choices.home, endpoint, took)

    async def live() -> None:
        await Stack(family, voice).run(when_up)

    with choices.home.held():
        voice.says(f"starting {', '.join(family.names)}")
        try:
            asyncio.run(live())
        finally:
            choices.home.withdraw()


def _panel(home: Home, endpoint: Endpoint, took: timedelta) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    rows = Table.grid(padding=(0, 2))
    rows.add_row("API", f"{endpoint['api']}  (its reference: {endpoint['api']}/docs)")
    rows.add_row("Flower", endpoint["flower"] or "off")
    rows.add_row("Home", str(home.path))
    rows.add_row("Key", str(home.key_file))
    rows.add_row("Try", "flo init; flo push hello.json; flo invoke --flow hello")
    rows.add_row("Stop", "Ctrl-C")
    console = Console(soft_wrap=True)
    title = f"Flo is up (in {took.total_seconds():.1f} s)"
    console.print(Panel(rows, title=title, title_align="left", border_style="green", expand=False))
