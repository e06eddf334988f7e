"""The V8 sandbox: JavaScript in isolates, a fresh one for every run. `pool.py` is ours, `host.mjs` runs in Node."""

from workers.sandboxes.v8.pool import V8Pool as V8Pool
