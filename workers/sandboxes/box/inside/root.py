"""Build the root that all boxes of a zygote share: a read-only system without a host path in it.

Runs once, as root or in a user namespace of our own, in a mount namespace that nobody else sees: nothing is left on
the host, whatever happens.
"""

# Plain calls, not pathlib: this runs in every box that is made.
# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH114, PTH115, PTH120, PTH123, PTH211

from __future__ import annotations

import os
from collections.abc import Mapping

from . import kernel
from .room import HOST_PROC, STAGE

#: A folder that every machine has; the new root is mounted over it, out of the host's sight.
_PLACE = "/tmp"
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
#: What programs need of /etc: the loader's cache, alternatives, time zone, certificate authorities.
ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "localtime",
    "ssl",
    "ca-certificates",
    "mime.types",
)
#: And what it says of this place, not of the host.
WRITTEN = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nflo:x:1000:1000:flo:/work:/bin/sh\n",
    "group": "root:x:0:\nflo:x:1000:\n",
    "hosts": "127.0.0.1 localhost flo\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hostname": "flo\n",
}
_READ_ONLY = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV


def enter_namespaces(*, as_root: bool) -> None:
    """Take a mount namespace of our own; without root, in a user namespace where we may mount."""
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEW_MOUNT if as_root else kernel.NEW_MOUNT | kernel.NEW_USER)
    if not as_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def build(mounts: Mapping[str, str], *, with_host_proc: bool) -> None:
    """Build the root from the system's folders and `mounts` (place inside -> path here), and move into it."""
    # Held open: what lies below the place itself is out of sight once the new root is mounted over it.
    held = {inside: os.open(here, os.O_PATH | os.O_CLOEXEC) for inside, here in mounts.items()}
    kernel.mount("tmpfs", _PLACE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    for name in SYSTEM:
        _copy_or_bind(f"/{name}", f"{_PLACE}/{name}")
    os.mkdir(f"{_PLACE}/etc")
    for name in ETC:
        _copy_or_bind(f"/etc/{name}", f"{_PLACE}/etc/{name}")
    for name, text in WRITTEN.items():
        with open(f"{_PLACE}/etc/{name}", "w", encoding="ascii") as file:
            file.write(text)
    for inside, handle in held.items():
        _bind(f"/proc/self/fd/{handle}", _PLACE + inside, _READ_ONLY)
        os.close(handle)
    for name in ("proc", "work", "tmp", "run", "var", "dev", "dev/shm", STAGE):
        os.makedirs(f"{_PLACE}/{name.lstrip('/')}", exist_ok=True)
    os.symlink("/tmp", f"{_PLACE}/var/tmp")
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{_PLACE}/dev/{name}", kernel.ATTR_NOSUID | kernel.ATTR_NOEXEC)
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{_PLACE}/dev/{name}")
    if with_host_proc:
        os.mkdir(_PLACE + HOST_PROC)
        kernel.mount("/proc", _PLACE + HOST_PROC, None, kernel.MS_BIND | kernel.MS_REC)
    os.chdir(_PLACE)
    kernel.pivot_root_here()
    kernel.mount(
        "none", "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    )


def _copy_or_bind(here: str, there: str) -> None:
    """Bring a folder or file of the system: a symlink as it is, anything else read-only."""
    if os.path.islink(here):
        os.symlink(os.readlink(here), there)
    elif os.path.exists(here):
        _bind(here, there, _READ_ONLY)


def _bind(here: str, there: str, attributes: int) -> None:
    if os.path.isdir(here):
        os.makedirs(there, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(there), exist_ok=True)
        os.close(os.open(there, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(here, there, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.restrict_mount(there, attributes)
