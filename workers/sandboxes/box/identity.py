"""Tell processes apart for good: numbers are used again, and each pid namespace has its own."""

from __future__ import annotations

from pathlib import Path


def pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def started_at(pid: int) -> str:
    """Give a process's start time in clock ticks since boot (proc(5), stat field 22); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
