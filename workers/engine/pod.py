"""A node in a pod of a cluster: a run of its own, for whose end its run is parked. No worker is held meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import SoloBounds
from schemas.outcome import ChildNode, ErrorKind, RunError, Wait, WaitKind
from workers.engine.solo import SoloOrder, words_of
from workers.engine.solo_errors import as_nodes
from workers.nodes.node import NodeError, Park, Waits, node_error

#: Ends of the run that are none of the node's own doing: it was lost too often, or somebody stopped it.
_NOT_ITS_OWN = (ErrorKind.LOST, ErrorKind.CANCELLED)


def start_in_pod(order: SoloOrder, waits: Waits) -> Park:
    """Give what parks the run; its parking starts the run of this try, once."""
    child = ChildNode(given=words_of(order))
    return Park(Wait(node_id=order.node.id, kind=WaitKind.CHILD, waitpoint=waits.child(), child=child))


def given_in_pod(order: SoloOrder, ended: JSONObject) -> Mapping[str, JSONValue]:
    """Give what the node gave: the result of a run that has no other. Raise NodeError when it ended otherwise."""
    match ended:
        case {"status": "succeeded", "result": dict() as outputs}:  # a flow with one leaf gives what that gave
            return outputs
        case {"status": "succeeded"}:  # a pod may have been made to say anything
            raise node_error(ErrorKind.INTERNAL, "its run ended without a word of what the node gave")
    error = RunError.model_validate(ended["error"])
    if error.kind in _NOT_ITS_OWN:
        message = f"the run of the node's own pod ({ended['run_id']}) is {ended['status']}: {error.message}"
        raise node_error(ErrorKind.INTERNAL, message)
    raise NodeError(as_nodes(error, order.node, SoloBounds()))  # what it has stands in its resources (`with_pods`)
