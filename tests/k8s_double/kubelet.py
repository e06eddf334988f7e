"""The one node: gives pods their turn, runs each container as a process of this machine, and tells how it ended.

An image is a name that the node knows; a container is its command with the manifest's variables. What a volume mounts
is a folder of its own, and variables that name a path in it are made to name that folder: mounts are not made.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from schemas.pod import amount
from tests.k8s_double.shelf import Object, Shelf, timestamp

#: An image that the node has, and whose containers do nothing until they are ended.
PAUSE = "pause"
#: https://github.com/distribution/reference, as far as tests need it.
_IMAGE = re.compile(r"[a-z0-9]+([._/:-][a-z0-9A-Z]+)*", re.ASCII)
_LOOK = 0.1
_SIGKILL = 137
#: A container is the first process of a PID namespace: what it kills is its own, and what it leaves ends with it. All
#: of it ends with this process, too.
_WALL = (
    "setpriv", "--pdeathsig", "KILL", "unshare", *(() if os.geteuid() == 0 else ("--user", "--map-current-user")),
    "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip


@dataclass
class Running:
    """A pod on the node."""

    pod: Object
    folder: Path
    process: asyncio.subprocess.Process | None = None
    #: Set to have it end, whatever it does.
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    #: Why it was ended from outside: the pod's reason and message, or the container's reason.
    because: dict[str, str] = field(default_factory=dict)
    out_of_memory: bool = False
    #: The signal that a test has sent it; unshare(1) does not tell of one that ends its child.
    signalled: int | None = None


class Kubelet:
    """One node, of a size, with the images that it knows."""

    def __init__(
        self, shelf: Shelf, folder: Path, *, images: Mapping[str, Mapping[str, str]], cpu: str, memory: str
    ) -> None:
        """`images` are the environments of their containers; the folders of pods are in `folder`."""
        self._shelf = shelf
        self._images = {**images, PAUSE: {}}
        self._size = {"cpu": amount(cpu), "memory": amount(memory)}
        self._taken = {"cpu": Decimal(0), "memory": Decimal(0)}
        self._running: dict[str, Running] = {}
        self._logs: dict[str, Path] = {}
        #: By run, from when to when each of its containers was a process, by the monotonic clock.
        self.lives: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._root = folder
        folder.mkdir(parents=True)

    async def run(self, pod: Object) -> bool:
        """Run a pod to its end; tell whether it succeeded. Cancelled, it goes on until it is ended."""
        name = pod["metadata"]["name"]
        running = self._running[name] = Running(pod, self._root / name)
        running.folder.mkdir()
        task = asyncio.create_task(self._live(running), name=f"pod {name}")
        return await asyncio.shield(task)

    def end(self, pod: Object) -> None:
        """Have a pod end within its grace, and be gone then."""
        if (running := self._running.get(pod["metadata"]["name"])) is None:
            self._shelf.remove(pod)
            return
        self._tell(running, metadata={"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": 30})
        running.ending.set()

    async def ended(self, pod: Object) -> None:
        """Have a pod end, and wait until it is gone."""
        running = self._running.get(pod["metadata"]["name"])
        self.end(pod)
        if running is not None:
            await running.over.wait()

    def evict(self, job: str, message: str) -> None:
        self._of(job).because = {"reason": "Evicted", "message": message}
        self._of(job).ending.set()

    def lose(self, job: str) -> None:
        """Lose the node under a pod, as the cluster tells it when it takes the pod away."""
        running = self._of(job)
        said = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
        self._tell(running, conditions=[{**said, "message": "Taint manager: deleting due to NoExecute taint"}])
        running.because = {"reason": "NodeLost", "message": "Node which was running the pod is unresponsive"}
        running.ending.set()

    def kill(self, job: str, number: int) -> None:
        process = self._of(job).process
        assert process is not None, "the pod has no process"
        self._of(job).signalled = number if number == _SIGKILL - 128 else None
        psutil.Process(process.pid).children()[0].send_signal(number)

    def pids(self) -> list[int]:
        """List the processes of all pods."""
        return [each.process.pid for each in self._running.values() if each.process is not None]

    def log_of(self, name: str) -> str:
        path = self._logs.get(name)
        return path.read_text(errors="replace") if path is not None and path.exists() else ""

    async def aclose(self) -> None:
        for running in list(self._running.values()):
            running.because = {"reason": "NodeShutdown", "message": "the node is shutting down"}
            if running.process is not None:
                _kill_all(running.process.pid)
            running.ending.set()
            await running.over.wait()
        shutil.rmtree(self._root, ignore_errors=True)

    async def _live(self, running: Running) -> bool:
        code, reason = 0, "Completed"
        try:
            if await self._placed(running):
                try:
                    code, reason = await self._container(running)
                finally:
                    self._take(running.pod, -1)
            return self._end(running, code, reason)
        finally:
            del self._running[running.pod["metadata"]["name"]]
            running.over.set()

    async def _placed(self, running: Running) -> bool:
        """Wait for room on the node, for the image, and for the volumes. False when the pod is ended before."""
        spec = running.pod["spec"]
        while not self._fits(running.pod):
            self._tell(running, conditions=[_unschedulable(spec)])
            if await self._is_ending(running):
                return False
        self._take(running.pod, 1)
        self._tell(running, conditions=[{"type": "PodScheduled", "status": "True"}])
        while (missing := self._missing(running.pod)) is not None:
            self._tell(running, state={"waiting": missing})
            if await self._is_ending(running):
                self._take(running.pod, -1)
                return False
        return True

    async def _container(self, running: Running) -> tuple[int, str]:
        """Run the container; give its exit code, and why it ended."""
        container = running.pod["spec"]["containers"][0]
        self._tell(running, phase="Running", state={"running": {"startedAt": timestamp()}}, startTime=timestamp())
        if container["image"] == PAUSE:
            await running.ending.wait()
            return 143, "Error"
        environment, command = self._environment(running, container), container["command"]
        if shutil.which(command[0], path=environment.get("PATH")) is None:
            running.because = {"message": f'failed to create containerd task: exec: "{command[0]}": not found'}
            return 128, "StartError"
        log = self._logs[running.pod["metadata"]["name"]] = self._root / f"{running.folder.name}.log"
        with log.open("wb") as out:
            running.process = await asyncio.create_subprocess_exec(
                *_WALL, *command, *container.get("args", []), cwd=running.folder, stdout=out, stderr=out,
                env=environment, start_new_session=True,
            )  # fmt: skip
        began = time.monotonic()
        ending = asyncio.create_task(self._end_when_told(running))
        watching = asyncio.create_task(self._hold_to_memory(running, container))
        try:
            code = await running.process.wait()
        finally:
            ending.cancel()
            watching.cancel()
            _kill_all(running.process.pid)
            run = running.pod["metadata"].get("annotations", {}).get("flo.dev/run", "")
            self.lives[run].append((began, time.monotonic()))
        code = 128 + running.signalled if running.signalled else code if code >= 0 else 128 - code
        return (_SIGKILL, "OOMKilled") if running.out_of_memory else (code, "Completed" if code == 0 else "Error")

    async def _end_when_told(self, running: Running) -> None:
        await running.ending.wait()
        assert running.process is not None
        with suppress(psutil.NoSuchProcess):
            for first in psutil.Process(running.process.pid).children():
                first.terminate()
            grace = 0 if running.because else running.pod["spec"].get("terminationGracePeriodSeconds", 30)
            await asyncio.sleep(grace)
            _kill_all(running.process.pid)

    async def _hold_to_memory(self, running: Running, container: Object) -> None:
        limit = container.get("resources", {}).get("limits", {}).get("memory")
        while limit is not None:
            await asyncio.sleep(_LOOK)
            assert running.process is not None
            if await asyncio.to_thread(_memory_of, running.process.pid) > amount(limit):
                running.out_of_memory = True
                _kill_all(running.process.pid)
                return

    def _end(self, running: Running, code: int, reason: str) -> bool:
        """Tell how a pod ended, or that it is gone."""
        stored = self._stored(running)
        if stored is None:
            return False
        why = {key: running.because[key] for key in ("reason", "message") if key in running.because}
        ended = {"exitCode": code, "reason": reason, "startedAt": timestamp(), "finishedAt": timestamp()}
        if reason == "StartError":
            ended, why = {**ended, **why}, {}
        succeeded = code == 0 and not why and not running.ending.is_set()
        self._tell(running, phase="Succeeded" if succeeded else "Failed", state={"terminated": ended}, **why)
        if "deletionTimestamp" in stored["metadata"] or why.get("reason") == "NodeLost":
            self._shelf.remove(stored)
        shutil.rmtree(running.folder, ignore_errors=True)
        return succeeded

    def _environment(self, running: Running, container: Object) -> dict[str, str]:
        """Give the image's variables and the manifest's, with the folders that stand for what is mounted."""
        spec, namespace = running.pod["spec"], running.pod["metadata"]["namespace"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        folders = {}
        for mount in container.get("volumeMounts", []):
            folder = folders[mount["mountPath"]] = running.folder / mount["name"]
            folder.mkdir()
            if secret := volumes[mount["name"]].get("secret"):
                stored = self._shelf.get("Secret", namespace, secret["secretName"])
                assert stored is not None
                for name, value in stored["data"].items():
                    (folder / name).write_bytes(b64decode(value))
        about = {"metadata.uid": running.pod["metadata"]["uid"], "metadata.name": running.pod["metadata"]["name"]}
        given = {
            each["name"]: about[each["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in each else each["value"]
            for each in container.get("env", [])
        }
        for name, value in given.items():
            for mounted, folder in folders.items():
                if value == mounted or value.startswith(f"{mounted}/"):
                    given[name] = str(folder) + value.removeprefix(mounted)
        return {**self._images[container["image"]], **given}

    def _fits(self, pod: Object) -> bool:
        return not pod["spec"].get("nodeSelector") and all(
            self._taken[name] + self._wanted(pod, name) <= size for name, size in self._size.items()
        )

    def _take(self, pod: Object, times: int) -> None:
        for name in self._taken:
            self._taken[name] += times * self._wanted(pod, name)

    def _wanted(self, pod: Object, name: str) -> Decimal:
        requests = [each.get("resources", {}).get("requests", {}) for each in pod["spec"]["containers"]]
        return sum((amount(each.get(name, "0")) for each in requests), Decimal(0))

    def _missing(self, pod: Object) -> dict[str, str] | None:
        """Say what a container waits for."""
        image = pod["spec"]["containers"][0]["image"]
        if not _IMAGE.fullmatch(image):
            return {"reason": "InvalidImageName", "message": f'Failed to apply default image tag "{image}"'}
        if image not in self._images:
            return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}": not found'}
        for volume in pod["spec"].get("volumes", []):
            secret = volume.get("secret")
            if secret and not self._shelf.get("Secret", pod["metadata"]["namespace"], secret["secretName"]):
                return {"reason": "ContainerCreating"}
        return None

    async def _is_ending(self, running: Running) -> bool:
        """Look again when something has changed, or after a moment."""
        with suppress(TimeoutError):
            await asyncio.wait_for(running.ending.wait(), _LOOK)
        return running.ending.is_set()

    def _tell(
        self, running: Running, *, metadata: dict[str, Any] | None = None, state: dict[str, Any] | None = None,
        conditions: list[dict[str, Any]] | None = None, **status: str,
    ) -> None:  # fmt: skip
        """Note how a pod stands; the same again is no news."""
        stored = self._stored(running)
        if stored is None:
            return
        said: dict[str, Any] = dict(status)
        if conditions is not None:
            said["conditions"] = conditions
        if state is not None:
            container = running.pod["spec"]["containers"][0]
            known = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
            said["containerStatuses"] = [{**known, "ready": "running" in state, "state": state}]
        if metadata or any(stored["status"].get(key) != value for key, value in said.items()):
            self._shelf.change(stored, {"status": said, "metadata": metadata or {}})

    def _stored(self, running: Running) -> Object | None:
        metadata = running.pod["metadata"]
        return self._shelf.get("Pod", metadata["namespace"], metadata["name"])

    def _of(self, job: str) -> Running:
        return next(
            each
            for each in self._running.values()
            if each.pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job
        )


def _unschedulable(spec: Object) -> dict[str, str]:
    why = (
        "node(s) didn't match Pod's node affinity/selector" if spec.get("nodeSelector") else "Insufficient cpu, memory"
    )
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {**said, "message": f"0/1 nodes are available: 1 {why}."}


def _memory_of(pid: int) -> int:
    """Give what a process and all that it started have in memory, in bytes."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(pid)
        for process in (family, *family.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def _kill_all(pid: int) -> None:
    """End a container: its process and all that it started."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(pid).children()
    for process in family:  # the first of its namespace: the kernel ends the others with it
        with suppress(psutil.NoSuchProcess):
            process.kill()
