"""One webhook request, as it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The raw request: signatures are over its bytes, so they are kept as they came."""

    app: str
    path: str
    method: str
    #: Names in lower case; values of a repeated header joined by ", ".
    headers: Mapping[str, str]
    query: Mapping[str, str | list[str]]
    body: bytes
    received_at: datetime
