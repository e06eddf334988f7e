"""Runs npm: installs packages into a folder, and says in one sentence why it could not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import orjson

from workers.preparation.npm_words import NpmFailure, explain
from workers.sandboxes.node.setup import die_with_parent, find_node

#: Installs that one process does at a time; each is a Node process of some 100 MB.
AT_ONCE = 2
#: Longest time that one install may take.
LONGEST_INSTALL = timedelta(minutes=3)
#: Variables that npm, Node and a proxy are configured by; nothing else of this process is npm's business.
_PASSED_ON = re.compile(
    r"PATH|HOME|TMPDIR|LANG|SSL_CERT_(FILE|DIR)|NODE_(EXTRA_CA_CERTS|USE_SYSTEM_CA)|(https?|no|all)_proxy|npm_.*|xdg_.*",
    re.IGNORECASE,
)
_OPTIONS = (
    *("--omit=dev", "--omit=optional", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"),
    # Packages come from a registry: one that names a git repository would have npm run git.
    *("--allow-git=none", "--json", "--loglevel=silent", "--logs-max=0"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-timeout=60000"),
)


class Npm:
    """The npm that comes with Node, configured as on this machine (`.npmrc`, `npm_config_*`)."""

    def __init__(
        self,
        *,
        scripts: Literal["deny", "allow"] = "deny",
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        longest: timedelta = LONGEST_INSTALL,
    ) -> None:
        self._options = (*_OPTIONS, "--ignore-scripts" if scripts == "deny" else "--no-ignore-scripts", *options)
        # npm has its own variables, which Flo does not know by name.
        self._environ = dict(os.environ if environ is None else environ)
        self._longest = longest.total_seconds()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def install(self, folder: Path, *specs: str, cache: Path | None = None) -> None:
        """Install what `folder/package.json` names, and `specs`, into `folder/node_modules`.

        Raises NpmFailure with the reason. Being cancelled kills npm.
        """
        node = find_node()
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        arguments = ["install", *self._options, *([f"--cache={cache}"] if cache is not None else []), *specs]
        passed = {name: value for name, value in self._environ.items() if _PASSED_ON.fullmatch(name)}
        async with self._turns:
            exit_code, said = await self._run(
                [*die_with_parent(), str(node), str(npm), *arguments],
                folder=folder,
                environ={**passed, "PATH": f"{node.parent}{os.pathsep}{passed.get('PATH', os.defpath)}"},
            )
        if exit_code != 0:
            raise explain(_error(said), exit_code=exit_code)

    async def _run(self, command: Sequence[str], *, folder: Path, environ: Mapping[str, str]) -> tuple[int, bytes]:
        """Run the command and give its exit code and output; it is dead when this ends, however it ends."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._longest):
                said, _ = await process.communicate()
        except TimeoutError:
            raise NpmFailure("ETIMEDOUT", f"npm took longer than {self._longest:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return process.returncode or 0, said


def _error(said: bytes) -> Mapping[str, str]:
    try:
        error = orjson.loads(said)["error"]
        return {key: str(error.get(key) or "") for key in ("code", "summary", "detail")}
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return {"code": "", "summary": "", "detail": ""}
