"""What `flo doctor` says of Docker."""

from __future__ import annotations

from flo.doctor.checks import docker
from tests.servers import DockerServer


def test_a_daemon_with_the_image_is_found(docker_server: DockerServer) -> None:
    finding = docker(docker_server.environment)

    assert finding.ok and docker_server.image in finding.detail


def test_a_missing_image_is_named_with_the_fix(docker_server: DockerServer) -> None:
    finding = docker({**docker_server.environment, "FLO_DOCKER_IMAGE": "flo-runner:nowhere"})

    assert not finding.ok and "flo-runner:nowhere" in finding.detail and "docker-runner-image" in finding.fix


def test_a_missing_runtime_is_named(docker_server: DockerServer) -> None:
    finding = docker({**docker_server.environment, "FLO_DOCKER_RUNTIME": "runc,nothing-such"})

    assert not finding.ok and "nothing-such" in finding.detail


def test_a_daemon_that_is_away_is_named() -> None:
    finding = docker({"DOCKER_HOST": "unix:///nowhere/docker.sock"})

    assert not finding.ok and "/nowhere/docker.sock" in finding.detail and "DOCKER_HOST" in finding.fix
