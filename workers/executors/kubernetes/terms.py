"""What the operator says of every Job: read once, from the settings and a pod template in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from schemas.errors import SettingsError, Unavailable
from schemas.settings import Settings

#: What a runner reads of its worker's variables, so that a run gets the same modes in a pod as in a worker.
_PASSED_ON = (
    "execution_mode", "weakest_mode", "egress", "npm_allow", "inline_http_max_duration", "allow_private_network",
    "public_url", "log_format",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTerms:
    """Where Jobs are made, of what, and how long they may take to begin."""

    namespace: str
    image: str
    #: Where a pod reaches the API.
    api_url: str
    runtime_class: str | None = None
    #: What the runner finds in its environment, besides where the API and its token are.
    variables: Mapping[str, str] = field(default_factory=dict)
    starts_within: timedelta = timedelta(minutes=5)
    kept_for: timedelta = timedelta(minutes=5)
    #: A PodTemplateSpec: what it says stands, unless Flo itself must say it.
    template: Mapping[str, Any] = field(default_factory=dict)


def read_terms(settings: Settings) -> PodTerms:
    """Raises Unavailable when an image or the API's address is missing, SettingsError for a template that is none."""
    if settings.k8s_executor_image is None:
        raise Unavailable("Jobs have no image: set K8S_EXECUTOR_IMAGE to the runner's (compose/Dockerfile.runner)")
    if settings.api_url is None:
        raise Unavailable("a Job would not find the API: set FLO_URL to its address as pods of the cluster reach it")
    return PodTerms(
        namespace=settings.k8s_namespace,
        image=settings.k8s_executor_image,
        api_url=settings.api_url,
        runtime_class=settings.k8s_runtime_class,
        variables=_variables(settings),
        starts_within=timedelta(seconds=settings.k8s_start_seconds),
        kept_for=timedelta(seconds=settings.k8s_keep_seconds),
        template=_template(settings),
    )


def _variables(settings: Settings) -> dict[str, str]:
    """Pass on what differs from the default."""
    found = {}
    for name in _PASSED_ON:
        field_, value = Settings.model_fields[name], getattr(settings, name)
        if value is not None and value != field_.default:
            found[str(field_.validation_alias)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _template(settings: Settings) -> Mapping[str, Any]:
    path = settings.k8s_pod_template
    if path is None:
        return {}
    import yaml  # comes with the Kubernetes client, which not every worker has

    try:
        read = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"K8S_POD_TEMPLATE is {path}, which can't be read: {error}") from error
    template = read.get("template", read) if isinstance(read, dict) else None
    if not isinstance(template, dict) or not isinstance(template.get("spec", {}), dict):
        raise SettingsError(f"K8S_POD_TEMPLATE is {path}, which holds no pod template: give metadata and spec of a pod")
    return template
