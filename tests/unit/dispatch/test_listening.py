"""A port is taken before anything else, and what is in the way is said with the fix."""

from __future__ import annotations

import pytest

from dispatch.listening import take_port
from schemas.errors import Unavailable


def test_a_free_port_is_found() -> None:
    with take_port("127.0.0.1", 0) as taken:
        assert taken.getsockname()[1] > 0
        assert not taken.getblocking()


def test_a_port_that_is_taken_is_named_with_the_fix() -> None:
    with take_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(Unavailable, match=f"port {port} on 127.0.0.1 is taken.* choose another port with --port"):
            take_port("127.0.0.1", port)


def test_a_host_that_is_not_here_is_named_with_the_fix() -> None:
    with pytest.raises(Unavailable, match=r"can't be listened on .* choose another with --host and --port"):
        take_port("192.0.2.1", 0)
