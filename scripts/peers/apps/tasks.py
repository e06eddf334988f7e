"""What the tasks do; the same for each peer."""

from __future__ import annotations

import os
import time
import urllib.request

#: Seconds that a call takes beside its request: long enough to be killed in the middle.
_WORK = 0.02


def noop() -> None:
    pass


def stamp(key: str) -> None:
    import redis

    redis.Redis.from_url(os.environ["REDIS_URL"]).rpush(key, time.time())


def call(url: str) -> None:
    time.sleep(_WORK)
    urllib.request.urlopen(url, timeout=20).read()
