"""How Flo tells what it does: logs, metrics, traces, and Flower."""
