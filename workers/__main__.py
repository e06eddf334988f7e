"""`python -m workers`: one dispatcher worker."""

from __future__ import annotations

import argparse
import sys

from dispatch.queues.celery_app import LANES
from schemas.errors import FloError
from schemas.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flo worker", description="Take jobs off the lanes and execute them.")
    parser.add_argument("--name", help="how Celery and Flower name this worker (default: flo-<pid>)")
    parser.add_argument("--lanes", default=",".join(LANES), help="comma-separated, of: %(default)s")
    parser.add_argument("--group", help="worker group: takes `<lane>.<group>` instead of `<lane>`")
    parser.add_argument("--concurrency", type=int, help="runs at once (default: FLO_MAX_CONCURRENCY)")
    given = parser.parse_args(arguments)
    lanes = tuple(lane.strip() for lane in given.lanes.split(",") if lane.strip())
    if unknown := [lane for lane in lanes if lane not in LANES]:
        parser.error(f"--lanes names {', '.join(unknown)}; there are {', '.join(LANES)}")

    from workers.celery_worker import serve

    try:
        settings = load_settings()
        return serve(settings, name=given.name, lanes=lanes, group=given.group, concurrency=given.concurrency)
    except FloError as error:
        print(f"flo worker: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
