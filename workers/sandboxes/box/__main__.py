"""`python -P -m workers.sandboxes.box`: what this machine can do for boxes, as one JSON object."""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from schemas.json import dumps
from workers.sandboxes.box.probe import probe


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    print(dumps(asyncio.run(probe()).as_json()))


if __name__ == "__main__":
    main()
