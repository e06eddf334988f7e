"""What a run may ask of a Kubernetes cluster, and what its operator lets it have. Pure.

A flow says what it needs (`settings.resources`), a run may say it otherwise (`backend_config`). Everything but
resources is the operator's to allow, app by app: who could name any service account or node would choose his rights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import Invalid, Problem, Refused
from schemas.json import JSONObject
from schemas.wording import listed, problems_of

_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?", re.ASCII)
_FACTORS: Final[Mapping[str, Decimal]] = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTP", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTP", start=1)},
}
_COMPUTE: Final = ("cpu", "memory")
#: What a device plugin offers: `nvidia.com/gpu`. Kubernetes' own names with a domain are not for runs.
_DEVICE = re.compile(r"(?!(?:[a-z0-9.-]+\.)?kubernetes\.io/)[a-z0-9.-]+\.[a-z]{2,}/[A-Za-z0-9._-]{1,63}", re.ASCII)
#: The runner itself, with an engine and one isolate, does not start with less.
LEAST_MEMORY: Final = "128Mi"

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


def amount(quantity: str) -> Decimal:
    """Give the number that a quantity stands for: `250m` is 0.25, `1Ki` is 1024. Raises ValueError."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError("must be a quantity of Kubernetes: a number and a unit, e.g. 500m, 2, 512Mi, 1.5Gi")
    return Decimal(match[1]) * _FACTORS[match[2] or ""]


def _positive(quantity: str) -> str:
    if amount(quantity) <= 0:
        raise ValueError("must be more than nothing")
    return quantity


def _known(amounts: dict[str, str]) -> dict[str, str]:
    for name in amounts:
        if name not in (*_COMPUTE, "ephemeral-storage") and not _DEVICE.fullmatch(name):
            raise ValueError(f'"{name}" is no resource; allowed: cpu, memory, ephemeral-storage, or <domain>/<device>')
    return amounts


Quantity = Annotated[str, AfterValidator(_positive)]
Amounts = Annotated[dict[str, Quantity], AfterValidator(_known)]


class Resources(BaseModel):
    """What a run takes of a node: `limits` is what it never gets more of, `requests` what is kept for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limits: Amounts
    #: The same as the limits unless it is said.
    requests: Amounts = {}

    @model_validator(mode="after")
    def _whole(self) -> Resources:
        if missing := [name for name in _COMPUTE if name not in self.limits]:
            raise ValueError(f'limits has no {" and no ".join(missing)}; say e.g. {{"cpu": "1", "memory": "512Mi"}}')
        if amount(self.limits["memory"]) < amount(LEAST_MEMORY):
            raise ValueError(f"limits.memory is {self.limits['memory']}, and the runner alone needs {LEAST_MEMORY}")
        for name, wanted in self.requests.items():
            if name not in self.limits or amount(wanted) > amount(self.limits[name]):
                given = self.limits.get(name, "nothing")
                raise ValueError(f"requests.{name} is {wanted}, which is more than limits.{name} ({given})")
        return self

    @property
    def kept(self) -> dict[str, str]:
        """What is kept for the run, with what it does not say."""
        return {**self.limits, **self.requests}


class Toleration(BaseModel):
    """A taint that a pod puts up with, as Kubernetes writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(min_length=1, max_length=316)
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = Field(default=None, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = Field(default=None, ge=0)


class PodWish(BaseModel):
    """What a run asks for in `backend_config`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    resources: Resources | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    #: As Kubernetes writes it; its server checks it.
    affinity: JSONObject | None = None
    service_account: str | None = None
    runtime_class: str | None = None
    image_pull_policy: PullPolicy | None = None


class PodAllowance(BaseModel):
    """What an app's operator lets its runs ask for; nothing but resources where nothing is said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Labels of nodes, and the values that may be asked for.
    node_selector: dict[str, tuple[str, ...]] = {}
    #: Keys of taints.
    tolerations: tuple[str, ...] = ()
    affinity: bool = False
    service_accounts: tuple[str, ...] = ()
    runtime_classes: tuple[str, ...] = ()
    image_pull_policies: tuple[PullPolicy, ...] = ()
    #: The most that `limits` may say.
    most: Amounts = {}


def pod_wish(
    backend_config: JSONObject, of_flow: Resources | None, allowed: PodAllowance, *, node: str | None = None
) -> PodWish:
    """Read what a run wants of its pod, its resources filled in from the flow.

    `node` names the node that the resources are of, if the pod is one node's.
    Raises Invalid for what can't be read and for a run without resources, Refused for what its operator does not allow.
    """
    try:
        wish = PodWish.model_validate(backend_config)
    except ValidationError as mistakes:
        raise Invalid(problems_of(mistakes, path="backend_config", model=PodWish), what="request") from None
    resources = wish.resources or of_flow
    if resources is None:
        raise Invalid([missing_resources("backend_config.resources")], what="request")
    own = wish.resources is not None
    wish = wish.model_copy(update={"resources": resources})
    for what, given, choice in _refused(wish, allowed):
        raise Refused(
            f"{_place(what, own=own, node=node)} is {given!r}, which is not allowed; allowed: {listed(choice)}. "
            "Leave it out, or have the operator add it to the app's limits (kubernetes)"
        )
    return wish


#: What a node's own resources are called in its document.
_OF_NODES = {"resources.limits.memory": "resources.memory_mb", "resources.limits.cpu": "resources.cpus"}


def _place(what: str, *, own: bool, node: str | None) -> str:
    """Say where something that was asked for is written: by the run, by its flow, or by the node."""
    if node is not None and what in _OF_NODES:
        return f'{_OF_NODES[what]} of node "{node}"'
    of_flow = what.startswith("resources.") and not own
    return f"settings.{what} of the flow" if of_flow else f"backend_config.{what}"


def missing_resources(path: str) -> Problem:
    """Word that a flow for Kubernetes does not say what it takes."""
    return Problem(
        path=path,
        message="a run that executes as a Kubernetes Job must say what it takes of a node, and this one does not",
        fix='add to the flow: "settings": {"resources": {"limits": {"cpu": "1", "memory": "512Mi"}}}',
    )


def _refused(wish: PodWish, allowed: PodAllowance) -> list[tuple[str, Any, list[str]]]:
    """List what is asked for and not allowed: where, what, and what could be asked for."""
    found: list[tuple[str, Any, list[str]]] = [
        (f"node_selector.{label}", value, list(allowed.node_selector.get(label, ())))
        for label, value in wish.node_selector.items()
        if value not in allowed.node_selector.get(label, ())
    ]
    found += [
        ("tolerations", taint.key, list(allowed.tolerations))
        for taint in wish.tolerations
        if taint.key not in allowed.tolerations
    ]
    for what, given, choice in (
        ("service_account", wish.service_account, allowed.service_accounts),
        ("runtime_class", wish.runtime_class, allowed.runtime_classes),
        ("image_pull_policy", wish.image_pull_policy, allowed.image_pull_policies),
    ):
        if given is not None and given not in choice:
            found.append((what, given, list(choice)))
    if wish.affinity is not None and not allowed.affinity:
        found.append(("affinity", "given", []))
    limits = wish.resources.limits if wish.resources is not None else {}
    found += [
        (f"resources.limits.{name}", limits[name], [f"up to {most}"])
        for name, most in allowed.most.items()
        if name in limits and amount(limits[name]) > amount(most)
    ]
    return found
