// One JSON value per line, both ways, over the socket that the worker left on descriptor 0.
// Nothing else in this process can write there: user code never sees a descriptor.
import net from "node:net";

const NEWLINE = 10;

/** Calls `receive(message)` for each line that arrives; ends this process the moment the worker is gone. */
export function open(receive) {
  const socket = new net.Socket({ fd: 0, readable: true, writable: true });
  const leave = () => process.kill(process.pid, "SIGKILL");
  let partial = [];
  socket.on("data", (chunk) => {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      partial.push(chunk.subarray(start, end));
      receive(JSON.parse(partial.length === 1 ? partial[0] : Buffer.concat(partial)));
      partial = [];
      start = end + 1;
    }
    if (start < chunk.length) partial.push(chunk.subarray(start));
  });
  socket.on("end", leave);
  socket.on("close", leave);
  socket.on("error", leave);

  let waiting = "";
  const flush = () => {
    const text = waiting;
    waiting = "";
    socket.write(text);
  };
  /** Sends what was said in one turn of the event loop with one write. */
  return function send(message) {
    if (waiting === "") setImmediate(flush);
    waiting += `${JSON.stringify(message)}\n`;
  };
}
