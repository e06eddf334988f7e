"""What a flow gets of a webhook request."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scheduler.event_config import WebhookConfig
from scheduler.problem import Malformed
from scheduler.webhooks.arrival import Arrival
from scheduler.webhooks.handshakes import handshake
from scheduler.webhooks.payload import delivery_id_of, matches, payload_of, place_in, request_of


def arrival(body=b"", content_type=None, **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        given["content-type"] = content_type
    return Arrival(
        app="shop",
        path="orders",
        method="POST",
        headers=given,
        query={"page": "2", "tag": ["a", "b"]},
        body=body,
        received_at=datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"a": [1]}', "application/json; charset=utf-8", {"a": [1]}),
        (b'{"a": 1}', "application/vnd.github+json", {"a": 1}),
        (b"a=1&b=2&b=3&c=", "application/x-www-form-urlencoded", {"a": "1", "b": ["2", "3"], "c": ""}),
        ("grüß".encode("latin-1"), "text/plain; charset=iso-8859-1", "grüß"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"\x00\xff", "application/octet-stream", {"base64": "AP8=", "content_type": "application/octet-stream"}),
        (b"\xff", "text/plain", {"base64": "/w==", "content_type": "text/plain"}),
        (b'{"a": 1}', None, {"a": 1}),
        (b"plain words", None, "plain words"),
        (b"", "application/json", None),
    ],
)
def test_a_body_is_read_by_its_content_type(body, content_type, expected):
    assert request_of(arrival(body, content_type))["body"] == expected


def test_malformed_json_is_refused_with_its_place():
    with pytest.raises(Malformed, match="line 2, column 6"):
        request_of(arrival(b'{"a": 1,\n "b" }', "application/json"))


def test_a_form_of_too_many_fields_is_refused():
    with pytest.raises(Malformed):
        request_of(arrival(b"&".join([b"a=1"] * 2000), "application/x-www-form-urlencoded"))


def test_secret_headers_do_not_reach_the_flow():
    request = request_of(
        arrival(authorization="Bearer s", cookie="c", x_gitlab_token="t", x_github_event="push"),
        secret_header="x-gitlab-token",
    )

    assert request["headers"] == {"x-github-event": "push"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("body.items.1.id", 8),
        ("body.items.9.id", None),
        ("body.items.x", None),
        ("headers.X-GitHub-Event", "push"),
        ("query.tag.0", "a"),
        ("method", "POST"),
        ("nothing.at.all", None),
    ],
)
def test_a_dotted_place_is_followed(place, value):
    request = request_of(arrival(b'{"items": [{"id": 7}, {"id": 8}]}', "application/json", x_github_event="push"))

    assert place_in(request, place) == value


def test_a_request_matches_when_every_place_has_its_value():
    request = request_of(arrival(b'{"action": "opened", "n": 1}', "application/json", x_github_event="push"))

    assert matches(request, {"headers.x-github-event": "push", "body.action": ["opened", "closed"]})
    assert not matches(request, {"headers.x-github-event": "push", "body.action": "closed"})
    assert matches(request, {})


def test_a_map_takes_what_it_names():
    request = request_of(arrival(b'{"order": {"id": 7}}', "application/json"))
    config = WebhookConfig(path="orders", map={"id": "body.order.id", "page": "query.page", "none": "body.x"})

    assert payload_of(request, config) == {"id": 7, "page": "2", "none": None}


@pytest.mark.parametrize(
    ("verify", "expected"),
    [
        ({"scheme": "github", "secret": "s"}, "guid-1"),
        ({"scheme": "standard", "secret": "c2VjcmV0"}, "msg_1"),
        ({"scheme": "stripe", "secret": "s"}, "evt_1"),
        ({"scheme": "slack", "secret": "s"}, "Ev1"),
        ({"scheme": "none"}, None),
    ],
)
def test_the_senders_own_delivery_id_is_found(verify, expected):
    request = request_of(
        arrival(
            b'{"id": "evt_1", "event_id": "Ev1"}', "application/json", x_github_delivery="guid-1", webhook_id="msg_1"
        )
    )

    assert delivery_id_of(request, WebhookConfig(path="orders", verify=verify)) == expected


def test_a_config_can_name_the_place_of_the_delivery_id():
    request = request_of(arrival(b'{"n": 5}', "application/json"))

    assert delivery_id_of(request, WebhookConfig(path="orders", dedupe_key="body.n")) == "5"


def test_only_slacks_question_is_answered():
    request = request_of(arrival(b'{"type": "url_verification", "challenge": "c1"}', "application/json"))

    assert handshake(request, WebhookConfig(path="a", verify={"scheme": "slack", "secret": "s"}).verify.scheme) == {
        "challenge": "c1"
    }
    assert handshake(request, WebhookConfig(path="a").verify.scheme) is None
