"""What a run token says, and which tokens are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from dispatch.run_keys import KeyPair, KeyRing
from dispatch.run_tokens import HoldRight, RunRight, Signer, key_id_of, read_with_key, read_with_secret

RIGHT = RunRight(run_id="run_1", app="acme", attempt=2)
SECRET = "a secret of thirty-two characters"
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.make(datetime.now(UTC))


def signer(pair: KeyPair) -> Signer:
    return Signer(pair.private, pair.kid)


def public(pair: KeyPair) -> jwt.PyJWK:
    return jwt.PyJWK(pair.public_jwk())


def test_a_token_says_run_app_and_attempt(pair: KeyPair) -> None:
    assert read_with_key(signer(pair).run(RIGHT, lasts=MINUTE), public(pair)) == RIGHT


def test_a_worker_has_a_token_of_its_own(pair: KeyPair) -> None:
    assert read_with_key(signer(pair).hold(HoldRight(worker="wrk_1")), public(pair)) == HoldRight(worker="wrk_1")


def test_a_token_of_another_key_is_none(pair: KeyPair) -> None:
    other = KeyPair.make(datetime.now(UTC))

    assert read_with_key(signer(other).run(RIGHT, lasts=MINUTE), public(pair)) is None


def test_a_token_out_of_date_is_none(pair: KeyPair) -> None:
    assert read_with_key(signer(pair).run(RIGHT, lasts=-MINUTE), public(pair)) is None


def test_a_token_for_something_else_is_none(pair: KeyPair) -> None:
    claims = {"aud": "flo-poll", "run": "run_1", "app": "acme", "attempt": 1, "exp": datetime.now(UTC) + MINUTE}

    assert read_with_key(jwt.encode(claims, pair.private, algorithm="ES256"), public(pair)) is None


def test_a_shared_secret_signs_too() -> None:
    assert read_with_secret(Signer(SECRET).run(RIGHT, lasts=MINUTE), SECRET) == RIGHT
    assert read_with_secret(Signer(SECRET + "!").run(RIGHT, lasts=MINUTE), SECRET) is None


def test_neither_kind_is_taken_for_the_other(pair: KeyPair) -> None:
    assert read_with_key(Signer(SECRET).run(RIGHT, lasts=MINUTE), public(pair)) is None
    assert read_with_secret(signer(pair).run(RIGHT, lasts=MINUTE), SECRET) is None


def test_a_token_without_signature_is_none(pair: KeyPair) -> None:
    claims = {"aud": "flo-execution", "run": "run_1", "app": "acme", "attempt": 1, "exp": datetime.now(UTC) + MINUTE}
    bare = jwt.encode(claims, None, algorithm="none")

    assert read_with_key(bare, public(pair)) is None
    assert read_with_secret(bare, SECRET) is None


def test_a_rotated_ring_lists_the_pair_before_without_private_halves(pair: KeyPair) -> None:
    ring = KeyRing(pair).rotated(datetime.now(UTC))
    listed = ring.jwks()["keys"]

    assert [key["kid"] for key in listed] == [ring.current.kid, pair.kid]
    assert not [key for key in listed if "d" in key]


def test_a_token_names_its_key(pair: KeyPair) -> None:
    assert key_id_of(signer(pair).run(RIGHT, lasts=MINUTE)) == pair.kid
    assert key_id_of("nonsense") is None
