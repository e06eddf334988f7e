"""An event's `config`: what each kind allows, how its secret is kept, and how it is shown again."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from dispatch.store.vault import Vault
from scheduler.cron import CatchUp, Overlap, Schedule, read_schedule
from schemas.errors import Invalid, Problem
from schemas.event import EventKind
from schemas.json import JSONObject, JSONValue
from schemas.wording import problems_of

#: What is shown in place of a secret. Sent back unchanged, it keeps the secret as it is.
MASK = "***"

#: Longest time that a synchronous webhook may make its sender wait, in seconds.
LONGEST_WAIT = 900

_PATH = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


class Scheme(StrEnum):
    """How a webhook's sender proves who it is."""

    NONE = "none"
    STANDARD = "standard"
    GITHUB = "github"
    STRIPE = "stripe"
    SLACK = "slack"
    HMAC = "hmac"
    TOKEN = "token"
    BASIC = "basic"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InvokeConfig(_Part):
    """Nothing: an invoke event is started by a call."""


class ScheduleConfig(_Part):
    """When the flow runs, and with what."""

    cron: str | None = Field(default=None, max_length=200)
    every: str | None = Field(default=None, max_length=40)
    timezone: str | None = Field(default=None, max_length=100)
    catch_up: CatchUp = CatchUp.NONE
    overlap: Overlap = Overlap.ALLOW
    #: Goes into every run's payload, beside `scheduled_for`.
    payload: JSONObject = {}

    def schedule(self, *, anchor: datetime) -> Schedule:
        """Read the due times. Raises Invalid."""
        return read_schedule(cron=self.cron, every=self.every, timezone=self.timezone, anchor=anchor)


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$", to_lower=True)]


class Verify(_Part):
    """How the sender proves who it is; `secret`, or `secret_ref` for one kept by PUT /apps/{app}/secrets/{name}."""

    scheme: Scheme = Scheme.NONE
    secret: str | None = Field(default=None, min_length=1, max_length=4096)
    secret_ref: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    #: The secret as SQL keeps it. Never accepted, never shown.
    sealed: str | None = None
    #: hmac: the header with the signature; token: the header with the token (default Authorization: Bearer).
    header: HeaderName | None = None
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    #: hmac: what stands before the signature, e.g. "sha256=".
    prefix: str = Field(default="", max_length=40)
    #: basic: the user's name.
    username: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _complete(self) -> Verify:
        held = [name for name in ("secret", "secret_ref", "sealed") if getattr(self, name) is not None]
        if self.scheme is Scheme.NONE and held:
            raise ValueError('scheme "none" checks nothing and takes no secret; name the scheme, e.g. "github"')
        if self.scheme is not Scheme.NONE and len(held) != 1:
            raise ValueError(f'scheme "{self.scheme}" needs either "secret" or "secret_ref"')
        if self.scheme is Scheme.HMAC and self.header is None:
            raise ValueError('scheme "hmac" needs "header": the name of the header with the signature')
        if self.scheme is Scheme.BASIC and (not self.username or ":" in self.username):
            raise ValueError('scheme "basic" needs "username", without a colon')
        if self.scheme is Scheme.STANDARD and self.secret not in (None, MASK):
            check_standard_secret(self.secret or "")
        return self


class WebhookConfig(_Part):
    """Where a webhook listens, whom it believes, which requests it takes and what the flow gets of them."""

    path: str = Field(min_length=1, max_length=400)
    verify: Verify = Verify()
    #: Every one must hold: a dotted place in the request, and the value (or list of values) it must have.
    match: dict[str, JSONValue] = {}
    #: The payload's keys, each with the dotted place it comes from; without it the whole request is the payload.
    map: dict[str, str] | None = None
    #: A dotted place with the sender's id for the delivery, where the scheme defines none.
    dedupe_key: str | None = Field(default=None, max_length=200)
    #: How long `/sync` waits for the run.
    sync_timeout_s: float = Field(default=30, gt=0, le=LONGEST_WAIT)

    @model_validator(mode="after")
    def _clear_path(self) -> WebhookConfig:
        if not _PATH.fullmatch(self.path) or ".." in self.path.split("/"):
            raise ValueError(
                'path takes segments of letters, digits, ".", "_", "~", "-" with "/" between them: orders/new'
            )
        if self.path == "sync" or self.path.endswith("/sync"):
            raise ValueError('path must not end in "sync": that suffix asks for the flow\'s reply; choose another name')
        return self


Config: TypeAlias = InvokeConfig | ScheduleConfig | WebhookConfig

_MODELS: dict[EventKind, type[Config]] = {
    EventKind.INVOKE: InvokeConfig,
    EventKind.SCHEDULE: ScheduleConfig,
    EventKind.WEBHOOK: WebhookConfig,
}


def read_config(kind: EventKind, raw: JSONObject) -> Config:
    """Check a config as its kind wants it. Raises Invalid with every mistake."""
    model = _MODELS.get(kind)
    if model is None:
        message = f'events of kind "{kind}" can\'t be made yet; allowed: {", ".join(_MODELS)}'
        raise Invalid([Problem(path="kind", message=message, fix='use "schedule" and look for news in the flow')])
    path = raw.get("path")
    tidy: JSONObject = {**raw, "path": path.strip("/")} if model is WebhookConfig and isinstance(path, str) else raw
    try:
        return model.model_validate(tidy)
    except ValidationError as mistakes:
        raise Invalid(problems_of(mistakes, path="config", model=model), what="event") from None


def refuse_sealed(raw: JSONObject) -> None:
    """Raise Invalid when a request names the field that only Flo writes."""
    if isinstance(verify := raw.get("verify"), dict) and "sealed" in verify:
        message = '"sealed" is how Flo keeps a secret, and can\'t be given; use "secret" or "secret_ref"'
        raise Invalid([Problem(path="config.verify.sealed", message=message)], what="event")


def stored_config(config: Config, *, vault: Vault, label: str, before: JSONObject | None) -> JSONObject:
    """Write a config for SQL: a secret given in it is encrypted, MASK in its place keeps the one from `before`."""
    written: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    if not isinstance(config, WebhookConfig) or config.verify.secret is None:
        return written
    secret = written["verify"].pop("secret")
    if secret != MASK:
        sealed = vault.seal(secret, label=label)
        written["verify"]["sealed"] = base64.b64encode(sealed).decode()
        return written
    match before:
        case {"verify": {"sealed": str() as kept}}:
            written["verify"]["sealed"] = kept
            return written
    message = f'"{MASK}" stands for a secret that is already kept, and this event has none'
    raise Invalid([Problem(path="config.verify.secret", message=message, fix="give the secret")], what="event")


def shown_config(config: JSONObject) -> JSONObject:
    """Write a stored config for people: the secret masked."""
    verify = config.get("verify")
    if not isinstance(verify, dict) or "sealed" not in verify:
        return config
    return {**config, "verify": {**{key: value for key, value in verify.items() if key != "sealed"}, "secret": MASK}}


def unsealed(verify: Verify, *, vault: Vault, label: str) -> str | None:
    """Read a stored secret; None when the config holds none of its own."""
    return None if verify.sealed is None else vault.unseal(base64.b64decode(verify.sealed), label=label)


def check_standard_secret(secret: str) -> None:
    """Raise ValueError unless this is a Standard Webhooks secret."""
    try:
        Webhook(secret)
    except (binascii.Error, ValueError, EmptyWebhookSecretError):
        raise ValueError('a Standard Webhooks secret is base64, usually after "whsec_"') from None
