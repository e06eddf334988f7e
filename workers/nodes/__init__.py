"""How each built-in node type does its work; what it takes and gives is in `schemas/nodes/`. Read `node.py` first."""
