"""A function that does nothing: what Lambda and its runtime take by themselves."""

from __future__ import annotations


def handler(event: object, context: object) -> dict[str, str]:
    return {}
