import { basename, join, resolve } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { checkModel, chooseVariant, type Session } from "@fieldloop/runtime";
import type { OipServer, ServedModel } from "@fieldloop/runtime/oip";
import type { Command } from "commander";
import { action, note } from "../output.js";
import { readPort, stopSignal } from "../service.js";
import { parsePositiveInteger } from "./model-options.js";

interface ServeFlags {
  readonly host: string;
  readonly port?: number;
  readonly grpcPort?: number;
  readonly socket?: string;
  readonly provider: string;
  readonly variant?: string;
  readonly threads: number;
  readonly json?: boolean;
}

export function registerModelServe(model: Command): void {
  model
    .command("serve")
    .description("Serve models over the Open Inference Protocol v2: tensors in, tensors out")
    .argument("<path...>", "package folders, or ONNX files (served under their file name)")
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option(
      "--port <port>",
      "HTTP; 0 takes a free one (default 8000 where neither gRPC nor a socket is asked for)",
      readPort,
    )
    .option("--grpc-port <port>", "gRPC; 0 takes a free one", readPort)
    .option("--socket <path>", "HTTP on a unix socket")
    .option("--provider <name>", "execution provider", "cpu")
    .option("--variant <name>", "of each package; the one that suits this machine by default")
    .option("--threads <n>", "threads inside one operator", parsePositiveInteger, 1)
    .option("--json", "one JSON object a line, for programs")
    .action(action(serve));
}

/** Ends at SIGINT or SIGTERM, after the answers under way. */
async function serve(paths: string[], flags: ServeFlags): Promise<void> {
  const { ranWithVendorLibrary } = await import("./vendor-library.js");
  if (await ranWithVendorLibrary()) return;
  const { SessionService, serveGrpc, serveHttp } = await import("@fieldloop/runtime/oip");
  const { ortNode } = await import("@fieldloop/runtime/node");
  const service = new SessionService(await Promise.all(paths.map((path) => servedModel(path, flags))), {
    version: ortNode.version,
    platform: `onnxruntime_${flags.provider.split(":", 1)[0]}`,
  });
  const servers: OipServer[] = [];
  try {
    for (const { name } of await service.models()) {
      if (!flags.json) note(`opening ${name}`);
      await service.load(name);
    }
    const { host } = flags;
    const port =
      flags.port ?? (flags.grpcPort === undefined && flags.socket === undefined ? 8000 : undefined);
    if (port !== undefined) servers.push(await serveHttp(service, { host, port }));
    if (flags.socket !== undefined)
      servers.push(await serveHttp(service, { socketPath: resolve(flags.socket) }));
    if (flags.grpcPort !== undefined) servers.push(await serveGrpc(service, { host, port: flags.grpcPort }));
    const stopped = stopSignal();
    const models = (await service.models()).map(({ name, version }) => `${name}@${version}`);
    const urls = servers.map(({ url }) => url);
    if (flags.json) process.stdout.write(`${JSON.stringify({ event: "listening", urls, models })}\n`);
    else note(`serving ${models.join(", ")} at ${urls.join(", ")}`);
    await stopped;
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await service.stop();
  }
  if (flags.json) process.stdout.write(`${JSON.stringify({ event: "stopped" })}\n`);
}

async function servedModel(path: string, flags: ServeFlags): Promise<ServedModel> {
  if (path.endsWith(".onnx")) {
    const file = resolve(path);
    return { name: basename(path).slice(0, -".onnx".length), version: "1", open: () => open(file, flags) };
  }
  const { hostFacts, openPackage } = await import("@fieldloop/runtime/node");
  const { dir, manifest } = await openPackage(path, { purpose: "running" });
  const named = manifest.variants.find((variant) => variant.name === flags.variant);
  if (flags.variant !== undefined && named === undefined) {
    const known = manifest.variants.map((variant) => variant.name).join(", ");
    throw new FieldloopError(
      "not_found",
      `Serve "${path}": no variant "${flags.variant}", there are ${known}`,
    );
  }
  const variant = named ?? chooseVariant(manifest, hostFacts(["cpu", flags.provider]));
  return {
    name: manifest.model,
    version: String(manifest.version),
    open: () => open(join(dir, variant.file), flags),
  };
}

async function open(file: string, flags: ServeFlags): Promise<Session> {
  const { DEFAULT_SPIN_DURATION_US, backendFor, readModelFile } = await import("@fieldloop/runtime/node");
  checkModel(await readModelFile(file));
  const backend = await backendFor(flags.provider);
  return backend.openSession(file, {
    executionProvider: flags.provider,
    threadCount: flags.threads,
    spinDurationUs: DEFAULT_SPIN_DURATION_US,
  });
}
