"""Files into and out of a box's work folder, done from inside the box with the rights of the box.

Nobody else touches the folder: the worker never meets a path that user code made (Judge0, CVE-2024-28185).
"""

# Plain calls, not pathlib: this runs in every box that is made.
# ruff: noqa: PTH103, PTH120, PTH123

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from . import kernel

#: What is kept of /tmp for another try: more than this is not, as it was hardly meant for one.
_MOST_KEPT, _MOST_KEPT_BYTES = 64, 1 << 20

#: One file's answer: [name, size] or [name, -1, why it was left].
Collected = list[list[str | int]]


def put(work: str, files: Sequence[Sequence[str | int]], body: bytes, start: int = 0) -> int:
    """Write files below the work folder, with the folders that they need; runs before any user code.

    Gives where in `body` the next ones start.
    """
    for name, size in files:
        path = f"{work}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755)
        with open(fd, "wb") as file:
            file.write(body[start : start + int(size)])
        start += int(size)
    return start


def keep(folder: str) -> tuple[Collected, bytes]:
    """Take every regular file below a folder, or none when they are too many or too large."""
    names: list[str] = []
    try:
        for place, _, files in os.walk(folder):
            names += [os.path.relpath(f"{place}/{name}", folder) for name in files]
            if len(names) > _MOST_KEPT:
                return [], b""
    except RecursionError:  # deeper than anybody nests in earnest
        return [], b""
    found, body = take(folder, [name for name in names if name.isprintable()], _MOST_KEPT_BYTES)
    return ([], b"") if any(one[1] == -2 for one in found) else ([one for one in found if one[1] != -1], body)


def take(work: str, names: Sequence[str], most_bytes: int) -> tuple[Collected, bytes]:
    """Read regular files below the work folder; symlinks, devices, pipes and what is too large are left."""
    if not names:
        return [], b""
    folder = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    answers: Collected = []
    parts: list[bytes] = []
    left = most_bytes
    for name in names:
        try:
            content = _read(folder, name, left)
        except OSError as problem:
            answers.append([name, -1, problem.strerror or str(problem)])
            continue
        if content is None:
            answers.append([name, -1, "not a regular file"])
        elif len(content) > left:
            answers.append([name, -2, "over the limit"])
        else:
            answers.append([name, len(content)])
            parts.append(content)
            left -= len(content)
    return answers, b"".join(parts)


def _read(folder: int, name: str, most: int) -> bytes | None:
    """Read a file, at most one byte more than allowed; None if it is not a regular one."""
    # Without O_NONBLOCK a pipe would hold us for ever.
    fd = kernel.open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        return file.read(most + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
