"""What the runs of a worker share, so that one can learn from another. Every part is a port with a twin in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.engine.bulkhead import Bulkheads, MemoryBulkheads
from workers.engine.circuit import Breakers, MemoryBreakers
from workers.engine.results import MemoryResults, ResultCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Make one per worker and give it to every run; keys are kept apart by app."""

    breakers: Breakers = field(default_factory=MemoryBreakers)
    bulkheads: Bulkheads = field(default_factory=MemoryBulkheads)
    results: ResultCache = field(default_factory=MemoryResults)
