"""FlowEngine's HTTP and WebSocket API (docs/flowengine.md); start with `workflows.py`."""
