"""Event configs: what is allowed, and how a secret in one is kept and shown."""

from __future__ import annotations

import secrets

import pytest

from dispatch.store.vault import Vault
from scheduler.event_config import MASK, read_config, shown_config, stored_config, unsealed
from schemas.errors import Invalid, Unavailable
from schemas.event import EventKind

VAULT = Vault(secrets.token_bytes(32))


def webhook(**config):
    return read_config(EventKind.WEBHOOK, {"path": "orders", **config})


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        ("invoke", {"cron": "* * * * *"}, 'unknown key "cron"'),
        ("schedule", {"crn": "* * * * *"}, 'did you mean "cron"?'),
        ("schedule", {"catch_up": "some"}, "'none', 'latest' or 'all'"),
        ("schedule", {"payload": [1]}, "payload"),
        ("webhook", {}, '"path" is missing'),
        ("webhook", {"path": "a/../b"}, "path takes segments"),
        ("webhook", {"path": "a b"}, "path takes segments"),
        ("webhook", {"path": "orders/sync"}, "must not end in"),
        ("webhook", {"path": "a", "verify": {"scheme": "github"}}, 'needs either "secret" or "secret_ref"'),
        ("webhook", {"path": "a", "verify": {"scheme": "none", "secret": "s"}}, "takes no secret"),
        ("webhook", {"path": "a", "verify": {"scheme": "hmac", "secret": "s"}}, 'needs "header"'),
        ("webhook", {"path": "a", "verify": {"scheme": "basic", "secret": "s"}}, 'needs "username"'),
        ("webhook", {"path": "a", "verify": {"scheme": "standard", "secret": "whsec_é"}}, "base64"),
        ("webhook", {"path": "a", "verify": {"scheme": "gitlab", "secret": "s"}}, "scheme"),
        ("webhook", {"path": "a", "sync_timeout_s": 0}, "greater than 0"),
        ("poll", {"every": "5m"}, "can't be made yet"),
    ],
)
def test_a_wrong_config_is_explained(kind, config, says):
    with pytest.raises(Invalid) as refusal:
        read_config(EventKind(kind), config)

    assert says in str(refusal.value)


def test_slashes_around_a_path_are_dropped():
    assert webhook(path="/orders/new/").path == "orders/new"


def test_a_secret_is_sealed_shown_masked_and_read_back():
    config = webhook(verify={"scheme": "github", "secret": "s3cret"})

    stored = stored_config(config, vault=VAULT, label="a", before=None)

    assert "s3cret" not in str(stored)
    assert shown_config(stored)["verify"] == {"scheme": "github", "secret": MASK}
    assert unsealed(read_config(EventKind.WEBHOOK, stored).verify, vault=VAULT, label="a") == "s3cret"


def test_the_mask_sent_back_keeps_the_secret():
    before = stored_config(
        webhook(verify={"scheme": "github", "secret": "s3cret"}), vault=VAULT, label="a", before=None
    )
    changed = webhook(path="other", verify={"scheme": "github", "secret": MASK})

    after = stored_config(changed, vault=VAULT, label="a", before=before)

    assert after["verify"] == before["verify"]
    assert after["path"] == "other"


def test_the_mask_without_a_secret_before_is_refused():
    config = webhook(verify={"scheme": "github", "secret": MASK})

    with pytest.raises(Invalid, match="already kept"):
        stored_config(config, vault=VAULT, label="a", before=None)


def test_a_sealed_secret_opens_only_for_its_own_event():
    sealed = VAULT.seal("s3cret", label="event-secret:shop/orders")

    with pytest.raises(Unavailable):
        VAULT.unseal(sealed, label="event-secret:other/orders")


def test_a_sealed_secret_does_not_open_with_another_key():
    sealed = VAULT.seal("s3cret", label="a")

    with pytest.raises(Unavailable, match="another key"):
        Vault(secrets.token_bytes(32)).unseal(sealed, label="a")
