"""What is executed of a run that is one node in a pod: its flow with no other node, in a Job like any run's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from schemas.errors import Refused
from schemas.flow import Node
from schemas.json import JSONObject
from schemas.nodes.spec import SoloBounds
from workers.executors.base import RunOrder
from workers.executors.solo.one_node import one_node_run
from workers.runner.solo import solo_from

#: Processors of a node that does not say how many, where the operator has set no bound either.
_CPUS = 1.0


def pod_run(order: RunOrder, node_id: str) -> RunOrder:
    """Make of an order for the whole flow that of one node; the payload is the try at it, in the words of `words_of`.

    Raises Refused when the node may not be in a pod: what parked for it was another worker, or an engine that lies.
    """
    node = next((node for node in order.document.nodes if node.id == node_id), None)
    if node is None or node.execution_mode != "pod" or node.resources is None:
        raise Refused(
            f'node "{node_id}" may not run in a pod here; it must say so, and ask for no more than FLO_SOLO_MEMORY_MB '
            "and FLO_SOLO_CPUS allow on every worker"
        )
    given = cast(dict[str, Any], order.payload)
    tried = solo_from({**given, "node": node.model_dump(mode="json"), "place": "pod"}, order)
    alone = one_node_run(tried, SoloBounds(), most_ms=order.document.settings.max_execution_time_ms)
    return replace(
        order,
        document=alone.document,
        payload=alone.payload,
        backend_config={**order.backend_config, "resources": {"limits": _limits(node)}},
        past=[*alone.past, *order.past],
        may_park=False,
        node=node_id,
    )


def _limits(node: Node) -> JSONObject:
    assert node.resources is not None
    return {
        "memory": f"{node.resources.memory_mb}Mi",
        "cpu": f"{max(round((node.resources.cpus or _CPUS) * 1000), 1)}m",
    }
