"""What a container is made of, and how it is locked in. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.json import JSONObject

_MB = 1 << 20
#: Nobody's, on no machine's list: what the runner image calls `flo`.
USER = "1000:1000"
#: Where the scratch space is. Programs may be started there, as in a box.
_SCRATCH = "rw,exec,nosuid,nodev,mode=1777"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container. Without a network, unless it is given one by the name that the daemon has for it."""

    image: str
    #: What the image is started with; None leaves it to the image.
    command: tuple[str, ...] | None = None
    #: In place of the image's own entrypoint; None leaves that.
    entrypoint: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int
    cpus: float | None = None
    pids: int = 512
    #: Each of the work folder and /tmp; it counts as memory.
    tmp_mb: int = 256
    file_size_mb: int = 256
    open_files: int = 4096
    #: Processor time of each process; None leaves it to the wall clock.
    cpu_seconds: float | None = None
    network: str = "none"
    #: The daemon's own choice when empty: runc, as a rule.
    runtime: str = ""
    #: Where the command starts; empty for the work folder.
    cwd: str = ""

    def config(self) -> JSONObject:
        """Give the body of the daemon's `POST /containers/create`."""
        return {
            "Image": self.image,
            "Cmd": None if self.command is None else list(self.command),
            "Entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "Env": [f"{name}={value}" for name, value in self.env.items()],
            "Labels": dict(self.labels),
            "User": USER,
            "WorkingDir": self.cwd or "/work",
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "OpenStdin": True,
            # Whoever is attached is its owner: when that is gone, the program reads the end of its stdin.
            "StdinOnce": True,
            "NetworkDisabled": self.network == "none",
            "HostConfig": self._walls(),
        }

    def _rlimits(self) -> dict[str, int]:
        """Give the limits of each process (getrlimit(2))."""
        found = {"core": 0, "nofile": self.open_files, "fsize": self.file_size_mb * _MB}
        return found | ({"cpu": math.ceil(self.cpu_seconds)} if self.cpu_seconds is not None else {})

    def _walls(self) -> JSONObject:
        scratch = f"{_SCRATCH},size={self.tmp_mb}m"
        return {
            "NetworkMode": self.network,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": scratch, "/work": scratch},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": self.memory_mb * _MB,
            "MemorySwap": self.memory_mb * _MB,  # the sum of both, so no swap
            "PidsLimit": self.pids,
            "ShmSize": self.tmp_mb * _MB,
            "IpcMode": "private",
            "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in self._rlimits().items()],
            "Init": True,
            # What it says comes over the attached socket; a log of it would only fill the daemon's disk.
            "LogConfig": {"Type": "none", "Config": {}},
            **({"NanoCpus": round(self.cpus * 1e9)} if self.cpus is not None else {}),
            **({"Runtime": self.runtime} if self.runtime else {}),
        }
