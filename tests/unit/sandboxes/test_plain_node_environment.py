"""What plain Node is told of the worker's environment."""

from __future__ import annotations

from workers.sandboxes.plain_node.pool import passed_on


def test_a_proxy_of_the_environment_is_one_for_fetch_too() -> None:
    assert passed_on({"HTTPS_PROXY": "http://p:1", "AWS_SECRET_ACCESS_KEY": "s"}) == {
        "HTTPS_PROXY": "http://p:1",
        "NODE_USE_ENV_PROXY": "1",
    }
    assert passed_on({"PATH": "/bin"}) == {"PATH": "/bin"}
