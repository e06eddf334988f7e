"""The middle and the slow end of many waits."""

from __future__ import annotations


def quantiles(waits_ms: list[float]) -> dict[str, float]:
    """Give p50 and p99."""
    ordered = sorted(waits_ms)
    return {
        "idle_p50_ms": round(ordered[len(ordered) // 2], 2),
        "idle_p99_ms": round(ordered[int(len(ordered) * 0.99)], 2),
    }
