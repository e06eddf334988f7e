"""Starts a double for a test, and has it misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

#: The image that a double has.
IMAGE = "flo-runner:test"
NAMESPACE = "flo-runs"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Double:
    """A running one."""

    url: str
    token: str
    #: A file for KUBECONFIG.
    kubeconfig: Path
    process: subprocess.Popen[str]

    @property
    def variables(self) -> dict[str, str]:
        """What a worker is given to use it."""
        return {"KUBECONFIG": str(self.kubeconfig), "K8S_NAMESPACE": NAMESPACE, "K8S_EXECUTOR_IMAGE": IMAGE}

    def misbehave(self, act: str, **said: Any) -> None:
        httpx.post(f"{self.url}/double/{act}", json=said, timeout=10).raise_for_status()

    def state(self) -> dict[str, Any]:
        """Tell its processes (`pids`, and `lives` of those that were), what was asked, and all that is `stored`."""
        state: dict[str, Any] = httpx.get(f"{self.url}/double/state", timeout=10).raise_for_status().json()
        return state

    def stored(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.state()["stored"] if each["kind"] == kind]


@contextmanager
def running_double(folder: Path, *options: str) -> Iterator[Double]:
    """Start one on a free port; nothing of it is left afterwards."""
    command = [sys.executable, "-m", "tests.k8s_double", "--folder", str(folder / "kubelet"), *options]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        url, token = process.stdout.readline().split()
        yield Double(url, token, _kubeconfig(folder, url, token), process)
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


@contextmanager
def a_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Give the variables that name a cluster: the one that KUBECONFIG names, or a double.

    A real one needs K8S_NAMESPACE and K8S_EXECUTOR_IMAGE, and FLO_TEST_HOST: where its pods reach this machine.
    """
    if "KUBECONFIG" in os.environ:
        yield {name: os.environ[name] for name in ("KUBECONFIG", "K8S_NAMESPACE", "K8S_EXECUTOR_IMAGE")}
        return
    with running_double(folder) as double:
        yield double.variables


def _kubeconfig(folder: Path, url: str, token: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "double",
        "clusters": [{"name": "double", "cluster": {"server": url}}],
        "users": [{"name": "double", "user": {"token": token}}],
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path
