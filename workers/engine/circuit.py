"""Circuit breakers: a target that keeps failing is left alone for a while, then tried with care.

`admit` and `report` decide, purely; `Breakers` is the port that keeps each circuit where all who call the target see
it, and `MemoryBreakers` keeps them for one worker.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias

from schemas.flow import CircuitBreaker

#: How a call went. A call says nothing when its failure was not the target's, or when it was cancelled.
Verdict: TypeAlias = Literal["worked", "failed", "says nothing"]

#: Circuits that one worker remembers; those used longest ago are forgotten, which closes them.
MOST_CIRCUITS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How much a target is trusted. Each change of phase begins a new epoch; reports from older ones don't count."""

    phase: Literal["closed", "open", "half_open"] = "closed"
    epoch: int = 0
    #: Failures in a row, while closed.
    failures: int = 0
    #: When the phase began, in seconds.
    since: float = 0.0
    #: While half open: calls let through, and those that worked.
    trials: int = 0
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    epoch: int


@dataclass(frozen=True, slots=True)
class Refused:
    retry_after: timedelta


def admit(circuit: Circuit, rule: CircuitBreaker, now: float) -> tuple[Circuit, Admitted | Refused]:
    """Decide whether a call may be made now."""
    left = circuit.since + rule.open_ms / 1000 - now
    if circuit.phase == "closed":
        return circuit, Admitted(circuit.epoch)
    if circuit.phase == "half_open" and circuit.trials < rule.half_open_calls:
        return replace(circuit, trials=circuit.trials + 1), Admitted(circuit.epoch)
    if left > 0:
        return circuit, Refused(timedelta(seconds=left))
    # Open for long enough; or half open just as long, so whoever was let through has died without a report.
    trying = Circuit(phase="half_open", epoch=circuit.epoch + 1, since=now, trials=1)
    return trying, Admitted(trying.epoch)


def report(circuit: Circuit, rule: CircuitBreaker, now: float, *, epoch: int, verdict: Verdict) -> Circuit:
    """Take note of how a call went that was admitted in this epoch."""
    if epoch != circuit.epoch or circuit.phase == "open":
        return circuit
    opened = Circuit(phase="open", epoch=epoch + 1, since=now)
    match circuit.phase, verdict:
        case "closed", "worked":
            return replace(circuit, failures=0) if circuit.failures else circuit
        case "closed", "failed":
            failures = circuit.failures + 1
            return opened if failures >= rule.failure_threshold else replace(circuit, failures=failures)
        case "half_open", "worked":
            passed = circuit.passed + 1
            return Circuit(epoch=epoch + 1) if passed >= rule.half_open_calls else replace(circuit, passed=passed)
        case "half_open", "failed":
            return opened
        case "half_open", _:
            return replace(circuit, trials=circuit.trials - 1)
    return circuit


class Breakers(Protocol):
    """Where circuits are kept."""

    async def admit(self, key: str, rule: CircuitBreaker) -> Admitted | Refused:
        """Ask whether a call to this target may be made."""
        ...

    async def report(self, key: str, rule: CircuitBreaker, *, epoch: int, verdict: Verdict) -> None:
        """Tell how it went; every admitted call is reported once."""
        ...


class MemoryBreakers:
    """Keeps the circuits of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()

    async def admit(self, key: str, rule: CircuitBreaker) -> Admitted | Refused:
        circuit, answer = admit(self._circuits.get(key, Circuit()), rule, self._clock())
        self._keep(key, circuit)
        return answer

    async def report(self, key: str, rule: CircuitBreaker, *, epoch: int, verdict: Verdict) -> None:
        circuit = self._circuits.get(key)
        if circuit is not None:
            self._keep(key, report(circuit, rule, self._clock(), epoch=epoch, verdict=verdict))

    def _keep(self, key: str, circuit: Circuit) -> None:
        self._circuits[key] = circuit
        self._circuits.move_to_end(key)
        if len(self._circuits) > MOST_CIRCUITS:
            self._circuits.popitem(last=False)
