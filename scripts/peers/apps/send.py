"""Sends jobs: `send.py with_celery call 100 --argument http://host/job/ --numbered --rate 50`."""

from __future__ import annotations

import argparse
import importlib
import time


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("module")
    options.add_argument("task")
    options.add_argument("count", type=int)
    options.add_argument("--argument", help="the task's only argument")
    options.add_argument("--numbered", action="store_true", help="put the job's number after the argument")
    options.add_argument("--rate", type=float, help="jobs per second (default: as fast as they go)")
    options.add_argument("--say", action="store_true", help="print the time before each job is sent")
    given = options.parse_args()
    send = importlib.import_module(given.module).send
    started = time.perf_counter()
    for number in range(given.count):
        if given.rate is not None:
            time.sleep(max(0.0, started + number / given.rate - time.perf_counter()))
        argument = f"{given.argument}{number}" if given.numbered else given.argument
        if given.say:
            print(time.time())
        send(given.task, () if argument is None else (argument,))
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
