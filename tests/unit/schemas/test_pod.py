"""What a run may ask of a cluster."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Invalid, Refused
from schemas.pod import PodAllowance, Resources, amount, pod_wish

SMALL = {"limits": {"cpu": "1", "memory": "512Mi"}}


@pytest.mark.parametrize(
    ("quantity", "number"),
    [("2", 2), ("250m", "0.25"), ("1.5Gi", 3 * 2**29), ("1Ki", 1024), ("1k", 1000), ("0.1", "0.1")],
)
def test_a_quantity_is_a_number_and_a_unit(quantity: str, number: int | str) -> None:
    assert amount(quantity) == Decimal(number)


@pytest.mark.parametrize("quantity", ["", "much", "-1", "1e3", "1 Gi", "1gb", "Mi", "1\n", "٣"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        amount(quantity)


@given(st.integers(1, 10**9), st.sampled_from(["m", "", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_more_of_a_unit_is_more(number: int, unit: str) -> None:
    assert amount(f"{number}{unit}") < amount(f"{number + 1}{unit}")


def test_what_is_kept_for_a_run_is_its_limit_unless_it_says_less() -> None:
    resources = Resources(limits={"cpu": "2", "memory": "1Gi"}, requests={"cpu": "500m"})

    assert resources.kept == {"cpu": "500m", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("given_resources", "said"),
    [
        ({"limits": {"cpu": "1"}}, "limits has no memory"),
        ({"limits": {"cpu": "1", "memory": "64Mi"}}, "runner alone needs 128Mi"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "2Gi"}}, "more than limits.memory"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"nvidia.com/gpu": "1"}}, "more than limits.nvidia"),
        ({"limits": {"cpu": "1", "memory": "1Gi", "pods": "5"}}, "is no resource"),
        ({"limits": {"cpu": "1", "memory": "1Gi", "node.kubernetes.io/x": "5"}}, "is no resource"),
        ({"limits": {"cpu": "0", "memory": "1Gi"}}, "more than nothing"),
    ],
)
def test_resources_that_make_no_sense_are_refused_with_the_reason(given_resources: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        pod_wish({"resources": given_resources}, None, PodAllowance())


def test_a_run_without_resources_is_refused_with_the_fix() -> None:
    with pytest.raises(Invalid, match=r'"settings": \{"resources"'):
        pod_wish({}, None, PodAllowance())


def test_a_run_takes_what_its_flow_says_unless_it_says_otherwise() -> None:
    of_flow = Resources.model_validate(SMALL)
    own = {"limits": {"cpu": "4", "memory": "8Gi"}}

    assert pod_wish({}, of_flow, PodAllowance()).resources == of_flow
    assert pod_wish({"resources": own}, of_flow, PodAllowance()).resources == Resources.model_validate(own)


@pytest.mark.parametrize(
    "wish",
    [
        {"service_account": "admin"},
        {"runtime_class": "runc"},
        {"node_selector": {"pool": "secret"}},
        {"tolerations": [{"key": "node-role", "operator": "Exists"}]},
        {"affinity": {"nodeAffinity": {}}},
        {"image_pull_policy": "Always"},
    ],
)
def test_whatever_the_operator_does_not_allow_is_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="kubernetes"):
        pod_wish({"resources": SMALL, **wish}, None, PodAllowance())


def test_what_the_operator_allows_is_granted() -> None:
    allowed = PodAllowance(
        node_selector={"pool": ("gpu", "cpu")}, tolerations=("gpu",), affinity=True, service_accounts=("builder",),
        runtime_classes=("kata",), image_pull_policies=("Always",),
    )  # fmt: skip
    wish = {
        "resources": SMALL, "node_selector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAffinity": {}}, "service_account": "builder", "runtime_class": "kata",
        "image_pull_policy": "Always",
    }  # fmt: skip

    granted = pod_wish(wish, None, allowed)

    assert (granted.runtime_class, granted.service_account) == ("kata", "builder")


def test_no_run_gets_more_than_its_app_may_have() -> None:
    with pytest.raises(Refused, match=r"^backend_config\.resources\.limits\.memory is '512Mi'.*up to 256Mi"):
        pod_wish({"resources": SMALL}, None, PodAllowance(most={"memory": "256Mi"}))


def test_a_refusal_of_resources_says_where_they_are_written() -> None:
    allowed, small = PodAllowance(most={"memory": "256Mi"}), Resources.model_validate(SMALL)

    with pytest.raises(Refused, match=r"^settings\.resources\.limits\.memory of the flow is '512Mi'"):
        pod_wish({}, small, allowed)
    with pytest.raises(Refused, match=r'^resources\.memory_mb of node "resize" is'):
        pod_wish({"resources": SMALL}, None, allowed, node="resize")


@given(st.dictionaries(st.text(max_size=20), st.recursive(st.none() | st.text() | st.integers(), st.lists)))
def test_nothing_that_is_asked_for_breaks_the_reading(wish: dict[str, Any]) -> None:
    with pytest.raises((Invalid, Refused)):
        pod_wish(wish, None, PodAllowance())
