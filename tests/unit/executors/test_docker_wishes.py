"""What a run may ask of its container, and how every container is locked in."""

from __future__ import annotations

from typing import Any, cast

import pytest

from schemas.errors import Refused
from schemas.settings import Settings, load_settings
from workers.executors.docker.wishes import shape_for, usual_shape
from workers.sandboxes.docker.spec import Spec

OPERATOR = {"FLO_DOCKER_ALLOW": "ghcr.io/acme/*", "FLO_DOCKER_RUNTIME": "runc,runsc", "FLO_BOX_MEMORY_MB": "1024"}


@pytest.fixture
def settings() -> Settings:
    return load_settings(OPERATOR)


def test_who_asks_for_nothing_gets_the_operators_choice(settings: Settings) -> None:
    assert shape_for({}, settings) == usual_shape(settings)
    assert usual_shape(settings).runtime == "runc"


def test_what_the_operator_allows_can_be_had(settings: Settings) -> None:
    wish: Any = {"image": "ghcr.io/acme/runner:2", "runtime": "runsc", "memory_mb": 512, "cpus": 0.5}

    shape = shape_for(wish, settings)

    assert (shape.image, shape.runtime, shape.memory_mb, shape.cpus) == ("ghcr.io/acme/runner:2", "runsc", 512, 0.5)


@pytest.mark.parametrize(
    ("wish", "fix"),
    [
        ({"image": "docker.io/evil:1"}, "FLO_DOCKER_ALLOW"),
        ({"image": 7}, "FLO_DOCKER_ALLOW"),
        ({"runtime": "kata"}, "FLO_DOCKER_RUNTIME"),
        ({"memory_mb": 4096}, "FLO_BOX_MEMORY_MB"),
        ({"memory_mb": True}, "FLO_BOX_MEMORY_MB"),
        ({"cpus": 0}, "0.01"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_fix(settings: Settings, wish: Any, fix: str) -> None:
    with pytest.raises(Refused, match=fix):
        shape_for(wish, settings)


def test_a_container_has_no_rights_unless_it_is_given_some() -> None:
    config = Spec(image="it", memory_mb=64).config()
    walls = cast(dict[str, Any], config["HostConfig"])

    assert (config["User"], walls["NetworkMode"], walls["ReadonlyRootfs"]) == ("1000:1000", "none", True)
    assert (walls["CapDrop"], walls["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert walls["Memory"] == walls["MemorySwap"] == 64 << 20
    assert walls["PidsLimit"] > 0
    assert "Binds" not in walls and "Mounts" not in walls and "Privileged" not in walls
