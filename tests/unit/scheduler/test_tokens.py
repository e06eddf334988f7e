"""Poll tokens."""

from __future__ import annotations

import secrets

import jwt
import pytest

from dispatch.tokens import PollRight, PollTokens

SECRET = secrets.token_bytes(32)


def test_a_token_says_which_run_it_is_for():
    token = PollTokens(SECRET).issue("run_1", app="shop")

    assert PollTokens(SECRET).read(token) == PollRight("run_1", "shop")


def test_a_token_of_another_server_is_refused():
    token = PollTokens(secrets.token_bytes(32)).issue("run_1", app="shop")

    assert PollTokens(SECRET).read(token) is None


CLAIMS = {"aud": "flo-poll", "run": "run_1", "app": "shop", "exp": 4_000_000_000}


@pytest.mark.parametrize(
    "claims",
    [
        {**CLAIMS, "exp": 1},
        {**CLAIMS, "aud": "flo-executor"},
        {key: value for key, value in CLAIMS.items() if key != "exp"},
        {key: value for key, value in CLAIMS.items() if key != "run"},
    ],
)
def test_a_token_that_is_old_or_for_something_else_is_refused(claims):
    assert PollTokens(SECRET).read(jwt.encode(claims, SECRET, algorithm="HS256")) is None


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 5000, "é.è.ê"])
def test_nonsense_is_refused(token):
    assert PollTokens(SECRET).read(token) is None


def test_a_token_without_a_signature_is_refused():
    assert PollTokens(SECRET).read(jwt.encode(CLAIMS, "", algorithm="none")) is None
