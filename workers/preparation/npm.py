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
from workers.sandboxes.v8_setup import die_with_parent, find_node

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

    async def install(self, folder: Path, *specs: str, cache: Path | None = None) -> None:
        """Install what `folder/package.json` names, and `specs`, into `folder/node_modules`.

        Raises NpmFailure with the reason. Being cancelled kills npm.
        """
        node = find_node()
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        arguments = ["install", *self._options, *([f"--cache={cache}"] if cache is not None else []), *specs]
        passed = {name: value for name, value in self._environ.items() if _PASSED_ON.fullmatch(name)}
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(),
            *(str(node), str(npm), *arguments),
            cwd=folder,
            env={**passed, "PATH": f"{node.parent}{os.pathsep}{passed.get('PATH', os.defpath)}"},
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
        if process.returncode != 0:
            raise explain(_error(said), exit_code=process.returncode or 0)


def _error(said: bytes) -> Mapping[str, str]:
    try:
        error = orjson.loads(said)["error"]
        return {key: str(error.get(key) or "") for key in ("code", "summary", "detail")}
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return {"code": "", "summary": "", "detail": ""}
