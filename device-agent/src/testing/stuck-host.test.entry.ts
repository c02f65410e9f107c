import type { ControlMessage, HostMessage } from "../ipc.js";

/** A host that answers nothing that it is asked, as one that waits for a driver, and has something to tell of itself when it is told to end. */
function tell(message: HostMessage): void {
  process.send!(message);
}

process.on("message", (message: ControlMessage) => {
  if (message.kind === "start") tell({ kind: "ready", lanes: [] });
  if (message.kind !== "stop") return;
  const failure = { code: "source_failed", message: "Read: the camera is closed" } as const;
  tell({ kind: "warning", failure, active: true, lane: "main" });
  process.disconnect();
});
