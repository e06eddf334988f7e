// A host that has been taken over: whatever it is told to run, it runs as itself, with all that Node can do.
import net from "node:net";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const socket = new net.Socket({ fd: 0, readable: true, writable: true });
const send = (message) => socket.write(`${JSON.stringify(message)}\n`);
const Attack = (async () => {}).constructor;

createInterface({ input: socket }).on("line", async (line) => {
  const order = JSON.parse(line);
  if (order.type !== "run") return;
  try {
    const value = await new Attack("require", "inputs", order.source)(createRequire(import.meta.url), JSON.parse(order.inputs));
    send({ type: "done", id: order.id, value: JSON.stringify(value ?? null) });
  } catch (problem) {
    send({ type: "done", id: order.id, kind: "user_error", message: `${problem.code ?? problem.name}`, stack: "" });
  }
});
send({ type: "ready" });
