// A Node process that runs other people's code in V8 isolates. Read this first, then job.mjs.
//
// The main thread never runs user code: isolated-vm gives each running isolate a thread of its own, so that an endless
// loop in one holds up neither the others nor this process's leaving when its worker is gone.
import { discard, fresh } from "./isolates.mjs";
import { Job } from "./job.mjs";
import { serve } from "./serve.mjs";

serve({ fresh, discard, Job });
