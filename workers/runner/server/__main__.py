"""`python -m workers.runner.server`: one executor."""

from __future__ import annotations

import argparse
import sys

from dispatch.telemetry.logs import configure_logs
from schemas.errors import FloError
from schemas.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flo executor", description="Execute what workers elsewhere send over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="0 takes any free one (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, help="runs at once (default: FLO_MAX_CONCURRENCY)")
    given = parser.parse_args(arguments)
    if not 0 <= given.port <= 65_535:
        parser.error(f"--port {given.port} is no port; allowed: 0 to 65535")
    if given.concurrency is not None and given.concurrency < 1:
        parser.error(f"--concurrency {given.concurrency} lets nothing run; allowed: 1 and more")

    from workers.runner.server.serve import serve

    try:
        settings = load_settings()
        configure_logs(settings)
        serve(settings, host=given.host, port=given.port, capacity=given.concurrency or settings.max_concurrency)
    except FloError as error:
        print(f"flo executor: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
