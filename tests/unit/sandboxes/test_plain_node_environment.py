"""What plain Node is told of the worker's environment."""

from __future__ import annotations

from workers.sandboxes.plain_node.pool import passed_on, with_proxy


def test_secrets_of_the_worker_are_not_passed_on() -> None:
    assert passed_on({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s", "FLO_API_KEY": "k"}) == {"PATH": "/bin"}


def test_a_proxy_of_the_environment_is_one_for_fetch_too() -> None:
    assert with_proxy({"HTTPS_PROXY": "http://p:1"}) == {"HTTPS_PROXY": "http://p:1", "NODE_USE_ENV_PROXY": "1"}
    assert with_proxy({"PATH": "/bin"}) == {"PATH": "/bin"}
