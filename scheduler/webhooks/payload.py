"""Reads a webhook request: its body by content type, which events it concerns, and what their flows get of it."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import orjson

from scheduler.event_config import Scheme, WebhookConfig
from scheduler.problem import Malformed
from scheduler.requests import parse_json
from scheduler.webhooks.arrival import Arrival
from schemas.json import JSONObject, JSONValue, dumps, loads_foreign, whole

#: Never stored and never shown to a flow: they prove who the sender is to whoever has them.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})

#: Most fields of a form that are read.
_MOST_FIELDS = 1000

#: Where each scheme's sender puts its own id of a delivery, which a repeat has too.
_DELIVERY_IDS = {
    Scheme.STANDARD: "headers.webhook-id",
    Scheme.GITHUB: "headers.x-github-delivery",
    Scheme.STRIPE: "body.id",
    Scheme.SLACK: "body.event_id",
}


def request_of(arrival: Arrival, *, secret_header: str | None = None) -> JSONObject:
    """Write the request as a flow gets it: `{body, headers, query, method, path}`.

    JSON and forms become values, text a string, anything else `{"base64": ..., "content_type": ...}`.
    Raises Malformed when the body is not what its content type says.
    """
    return {
        "body": _body(arrival),
        "headers": dict(shown_headers(arrival, secret_header=secret_header)),
        "query": {name: _value(given) for name, given in arrival.query.items()},
        "method": arrival.method,
        "path": arrival.path,
    }


def shown_headers(arrival: Arrival, *, secret_header: str | None = None) -> dict[str, str]:
    """Leave out the headers that are secrets themselves."""
    return {
        name: value for name, value in arrival.headers.items() if name not in SECRET_HEADERS and name != secret_header
    }


def matches(request: JSONObject, wanted: JSONObject) -> bool:
    """Tell whether every dotted place has the value (or one of the list of values) that it must have."""
    return all(
        place_value in value if isinstance(value, list) and not isinstance(place_value, list) else place_value == value
        for place_value, value in ((place_in(request, place), value) for place, value in wanted.items())
    )


def payload_of(request: JSONObject, config: WebhookConfig) -> JSONObject:
    """Give the run's payload: the request, or what `map` takes from it (null where there is nothing)."""
    if config.map is None:
        return request
    return {key: place_in(request, place) for key, place in config.map.items()}


def delivery_id_of(request: JSONObject, config: WebhookConfig) -> str | None:
    """Find the sender's own id of this delivery."""
    place = config.dedupe_key or _DELIVERY_IDS.get(config.verify.scheme)
    value = None if place is None else place_in(request, place)
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else dumps(value)
    return text.replace("\x00", "")[:200] or None


def place_in(request: JSONObject, place: str) -> JSONValue:
    """Follow a dotted path (`body.items.0.id`); null where it leads nowhere. Header names have no dots."""
    here: Any = request
    for step in place.split("."):
        match here:
            case dict() if step in here:
                here = here[step]
            case dict() if step.lower() in here and here is request.get("headers"):
                here = here[step.lower()]
            case list() if step.isascii() and step.isdigit() and int(step) < len(here):
                here = here[int(step)]
            case _:
                return None
    found: JSONValue = here
    return found


def _body(arrival: Arrival) -> JSONValue:
    raw = arrival.body
    if not raw:
        return None
    declared = arrival.headers.get("content-type", "")
    kind = declared.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        parsed: JSONValue = parse_json(raw, foreign=True)
        return parsed
    if kind == "application/x-www-form-urlencoded":
        return _form(raw)
    if not kind:
        return _guess(raw)
    if kind.startswith("text/") or kind == "application/xml" or kind.endswith("+xml"):
        text = _text(raw, declared)
        if text is not None:
            return text
    return {"base64": base64.b64encode(raw).decode(), "content_type": kind}


def _value(given: str | list[str]) -> JSONValue:
    return given if isinstance(given, str) else list(given)


def _form(raw: bytes) -> JSONValue:
    try:
        fields = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Malformed(f"the body is not a form as its content type says: {error}") from None
    return {name: values[0] if len(values) == 1 else list(values) for name, values in fields.items()}


def _text(raw: bytes, declared: str) -> str | None:
    charset = declared.lower().partition("charset=")[2].partition(";")[0].strip(" \"'") or "utf-8"
    try:
        return whole(raw.decode(charset))
    except (UnicodeError, LookupError):  # "idna" and "undefined" are charsets to Python, and raise no decode error
        return None


def _guess(raw: bytes) -> JSONValue:
    try:
        guessed: JSONValue = loads_foreign(raw)
        return guessed
    except orjson.JSONDecodeError:
        text = _text(raw, "")
        return text if text is not None else {"base64": base64.b64encode(raw).decode(), "content_type": ""}
