from __future__ import annotations

from pathlib import Path

from flo.dev.plan import Choices, Plan, plan
from flo.home import Home


def laid_out(redis_url: str | None = None, home: str = '/home/ada/my "flo"') -> Plan:
    choices = Choices(
        home=Home(Path(home)), port=8080, flower_port=5555, redis_port=7000, redis_url=redis_url, workers=2
    )
    return plan(choices, None if redis_url else Path("/bin/redis-server"))


def test_workers_stop_first_and_all_else_after_them() -> None:
    ranks = [[program.name for program in rank] for rank in laid_out().ranks]

    assert ranks == [["worker-1", "worker-2"], ["tick", "api", "flower"]]


def test_the_password_of_redis_is_in_no_command_line_and_differs_each_time() -> None:
    one, other = laid_out(), laid_out()
    assert one.redis is not None
    password = one.redis.stdin.decode().split("requirepass ")[1].split("\n")[0]
    commands = " ".join(" ".join(program.argv) for program in (one.redis, *one.ranks[0], *one.ranks[1]))

    assert len(password) >= 24
    assert password not in commands
    assert f":{password}@127.0.0.1:7000" in one.ranks[0][0].env["REDIS_URL"]
    assert other.ranks[0][0].env["REDIS_URL"] != one.ranks[0][0].env["REDIS_URL"]


def test_redis_keeps_its_data_in_the_home_on_loopback_only() -> None:
    redis = laid_out().redis
    assert redis is not None
    config = redis.stdin.decode().splitlines()

    assert 'dir "/home/ada/my \\"flo\\"/redis"' in config
    assert "bind 127.0.0.1" in config
    assert "appendonly yes" in config


def test_a_redis_of_the_users_own_takes_the_place_of_the_embedded_one() -> None:
    family = laid_out(redis_url="redis://queue.internal:6379/2")

    assert family.redis is None
    assert family.ranks[0][0].env["REDIS_URL"] == "redis://queue.internal:6379/2"


def test_only_flower_may_fail() -> None:
    programs = [program for rank in laid_out().ranks for program in rank]

    assert [program.name for program in programs if not program.essential] == ["flower"]
