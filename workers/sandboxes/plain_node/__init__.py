"""JavaScript in plain Node: no sandbox, but the same port, errors and limits as in `v8/`. `host.mjs` runs in Node."""

from workers.sandboxes.plain_node.pool import PlainNodePool as PlainNodePool
