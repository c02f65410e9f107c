import { DOWN_KINDS, UP_KINDS } from "@fieldloop/protocol";
import { Option, type Command } from "commander";
import { FleetClient, resolveServer, withServerOptions, type ServerOptions } from "../client.js";
import { action } from "../output.js";

interface TapOptions extends ServerOptions {
  device?: string;
  kind?: string;
}

export function registerTapCommand(program: Command): void {
  const command = program
    .command("tap")
    .description(
      "Print live MQTT traffic, decoded, as JSON lines until Ctrl-C (needs an administrator's token)",
    )
    .option("--device <id>", "only this device")
    .addOption(
      new Option("--kind <kind>", "only this kind of message").choices([...UP_KINDS, ...DOWN_KINDS]),
    );
  withServerOptions(command).action(action(tap));
}

async function tap(options: TapOptions): Promise<void> {
  const query = new URLSearchParams();
  if (options.device !== undefined) query.set("device", options.device);
  if (options.kind !== undefined) query.set("kind", options.kind);
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  try {
    const client = new FleetClient(resolveServer(options));
    const response = await client.request("GET", `/api/v1/tap?${query.toString()}`, { signal: stop.signal });
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>)
      process.stdout.write(chunk);
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  }
}
