"""What boxes are made with, and what a run in one is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from schemas.json import JSONObject
from workers.executors.base import RunOrder
from workers.sandboxes.box.base import BoxLimits

#: Address space that V8 reserves and does not use, half a GB per isolate.
_RESERVED_MB = 256 * 1024
#: Nobody waits for a box's own deadline: whoever started it keeps the time (`ProgramOrder`).
_UNTIMED = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The operator's settings, as far as boxes with an engine need them."""

    #: Of a box as a whole: engine, code, and scratch space.
    memory_mb: int
    inline_http_cap: timedelta
    #: The worker has hooks that want to hear of every run.
    hooked: bool = False
    public_url: str = "http://127.0.0.1:8080"
    #: Inline requests that a box has on their way at once.
    http_places: int = 256

    def limits(self) -> BoxLimits:
        """Give what a box may use: enough for an engine and a V8 host with its threads."""
        return BoxLimits(
            timeout=_UNTIMED, memory_mb=self.memory_mb, pids=512, file_size_mb=256, tmp_mb=256, open_files=4096,
            max_output_bytes=16_000_000, reserved_mb=_RESERVED_MB,
        )  # fmt: skip

    def of(self, order: RunOrder) -> JSONObject:
        """Give what a run is told of them."""
        return {
            "inline_http_cap": self.inline_http_cap.total_seconds(),
            "reach": order.egress.reach,
            "hosts": list(order.egress.hosts),
            "hooked": self.hooked,
            "public_url": self.public_url,
        }
