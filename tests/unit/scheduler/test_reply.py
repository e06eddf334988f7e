"""The answer of a synchronous webhook."""

from __future__ import annotations

import pytest

from scheduler.webhooks.reply import reply_of


def test_a_plain_result_is_answered_as_json():
    reply = reply_of({"text": "hello"}, None, {})

    assert (reply.status_code, reply.body, reply.media_type) == (200, b'{"text":"hello"}', "application/json")


def test_a_respond_node_sets_status_and_headers():
    reply = reply_of("made", {"value": "made", "status": 201, "headers": {"X-Id": "7"}}, {})

    assert (reply.status_code, reply.body, reply.headers["x-id"]) == (201, b"made", "7")


def test_a_result_of_the_shape_of_an_answer_is_one():
    reply = reply_of({"status": 404, "headers": {"content-type": "text/html"}, "body": "<p>no"}, None, {})

    assert (reply.status_code, reply.body, reply.headers["content-type"]) == (404, b"<p>no", "text/html")


@pytest.mark.parametrize("result", [{"status": "lost", "order": 1}, {"headers": {}}, {}, [], 0, False])
def test_a_result_that_only_looks_like_an_answer_is_sent_whole(result):
    assert reply_of(result, None, {}).status_code == 200


@pytest.mark.parametrize("status", [99, 600, "200", None, True, 100])
def test_a_status_that_can_not_be_sent_becomes_200(status):
    assert reply_of({"status": status, "body": "x"}, None, {}).status_code == 200


def test_headers_that_are_the_servers_or_would_split_the_answer_are_left_out():
    headers = {"Set-Cookie": "a=b", "Content-Length": "1", "X-Bad": "a\r\nX-Evil: 1", "x y": "1", "X-Good": 5}

    reply = reply_of({"status": 200, "headers": headers, "body": "x"}, None, {})

    assert "set-cookie" not in reply.headers
    assert reply.headers["content-length"] == "1"
    assert "x-bad" not in reply.headers
    assert reply.headers["x-good"] == "5"


def test_no_script_in_a_reply_runs_on_the_servers_origin():
    reply = reply_of({"headers": {"content-type": "text/html"}, "body": "<script>"}, None, {})

    assert reply.headers["content-security-policy"] == "sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_empty_body_is_sent_empty():
    assert reply_of({"status": 204, "body": None}, None, {}).body == b""
