"""How an attempt is called in a cluster: the same name each time, so that creating it twice is one Job. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from workers.executors.base import RunOrder

#: Labels that Flo's Jobs and their pods carry, to be found again by. Values are made fit; annotations have them whole.
RUN_LABEL: Final = "flo.dev/run"
APP_LABEL: Final = "flo.dev/app"
ATTEMPT_LABEL: Final = "flo.dev/attempt"
#: What tells Flo's Jobs and pods from all others; `k8s/network-policy.yaml` selects the same.
MARKS: Final = {"app.kubernetes.io/managed-by": "flo", "app.kubernetes.io/component": "runner"}
SELECTOR: Final = ",".join(f"{label}={value}" for label, value in MARKS.items())

#: Characters of the app's and of the event's name in the name of a Job, for people; the hash tells runs apart.
_SHOWN: Final = 14
#: 16 letters of base 32 are 80 bits.
_HASHED: Final = 16
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
#: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)


def job_name(order: RunOrder) -> str:
    """Name an attempt's Job: `flo-<app>-<event>-<attempt>-<hash>`, a DNS label of at most 63 characters (RFC 1123)."""
    event = order.event or order.flow
    hashed = _hash(order.app, event, str(order.attempt), order.run_id)
    return f"flo-{_shown(order.app)}-{_shown(event)}-{order.attempt}-{hashed}"


def label_value(text: str) -> str:
    """Give a text as a label's value; one that is none is cut down to what may be there, and told apart by a hash."""
    if _LABEL.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:40].strip("-._")
    return f"{kept}.{_hash(text)}".lstrip(".")


def _shown(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SHOWN].strip("-") or "x"


def _hash(*parts: str) -> str:
    # NUL stands in no name, so no two lists of parts are the same text.
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:16], "big")
    letters = []
    for _ in range(_HASHED):
        letters.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(letters)
