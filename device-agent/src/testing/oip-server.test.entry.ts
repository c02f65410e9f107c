import { ortNode } from "@fieldloop/runtime/node";
import { serveHttp, SessionService } from "@fieldloop/runtime/oip";

/** A server of the Open Inference Protocol in a process of its own, for one ONNX file: `node oip-server.test.entry.js FILE MODEL PORT`. */
const [, , file, model, port] = process.argv;
const service = new SessionService(
  [
    {
      name: model!,
      version: "1",
      open: () => ortNode.openSession(file!, { threadCount: 1, executionProvider: "cpu" }),
    },
  ],
  { version: "1", platform: "test" },
);
await service.load(model!);
const server = await serveHttp(service, { host: "127.0.0.1", port: Number(port) });
process.stdout.write(`${server.url}\n`);
