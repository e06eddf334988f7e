// A Node process that runs code as plain Node, each run in a worker thread of its own. Read this first, then job.mjs.
//
// This is no sandbox: code may do whatever this process may. What it keeps apart is honest failure: an endless loop, a
// full heap, process.exit or a rejection that nobody handles ends its own run and no other.
import { serve } from "../v8/serve.mjs";
import { Job } from "./job.mjs";
import { discard, fresh } from "./threads.mjs";

serve({ fresh, discard, Job });
