"""`python -m dispatch.telemetry.flower`: Celery's dashboard on Flo's lanes."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from dispatch.queues.celery_app import control_url, make_celery
from schemas.errors import FloError
from schemas.settings import load_settings

#: Finished jobs and workers gone for this long (seconds) leave the dashboard; its memory stays bounded.
_FORGET_WORKERS = 3600
_JOBS_KEPT = 10_000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flo flower", description="Show workers and jobs in a browser.")
    parser.add_argument("--port", type=int, default=5555, help="default: %(default)s")
    parser.add_argument("--address", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--basic-auth", help="user:password; without it Flower is open to whoever reaches the port")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings()
    except FloError as error:
        print(f"flo flower: {error}", file=sys.stderr)
        return 2
    if control_url(settings) is None:
        print(
            f"flo flower: jobs are on {settings.async_backend}, and Flower hears of them over a Redis; "
            "name one in FLO_EVENTS_URL, here and for the workers",
            file=sys.stderr,
        )
        return 2
    if problem := port_problem(given.address, given.port):
        print(f"flo flower: {problem}", file=sys.stderr)
        return 2
    if given.address in {"127.0.0.1", "localhost", "::1"} and not given.basic_auth:
        # Flower's JSON API refuses everyone otherwise; on loopback the dashboard itself is as open.
        os.environ.setdefault("FLOWER_UNAUTHENTICATED_API", "true")
    app = make_celery(settings)
    options = [
        f"--port={given.port}",
        f"--address={given.address}",
        f"--purge_offline_workers={_FORGET_WORKERS}",
        f"--max_tasks={_JOBS_KEPT}",
        "--logging=warning",
    ]
    if given.basic_auth:
        options.append(f"--basic_auth={given.basic_auth}")
    app.start(["flower", *options])
    return 0


def port_problem(address: str, port: int) -> str | None:
    """Say what is wrong with a port, if anything is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return f"port {port} on {address} can't be used ({error.strerror}); choose another with --port"
    return None


if __name__ == "__main__":
    sys.exit(main())
