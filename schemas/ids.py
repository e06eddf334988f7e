"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import os
import time
from datetime import datetime

#: Crockford's base 32 in lower case, so that an id is also fit for a DNS label.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def first_id(prefix: str, moment: datetime) -> str:
    """Give the first id that could have been made at this moment: all that were made earlier sort before it."""
    return _worded(prefix, int(moment.timestamp() * 1000) << 80)


def new_id(prefix: str) -> str:
    """Make `<prefix>_<26 characters>`: a ULID (48 bits of milliseconds, 80 random bits), lower case."""
    return _worded(prefix, (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big"))


def number_of(given: str) -> int:
    """Give the 128 bits of an id."""
    number = 0
    for letter in given.rpartition("_")[2]:
        number = number << 5 | _ALPHABET.index(letter)
    return number


def _worded(prefix: str, number: int) -> str:
    digits = []
    for _ in range(26):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return f"{prefix}_{''.join(reversed(digits))}"
