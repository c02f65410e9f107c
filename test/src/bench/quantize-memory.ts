import { quantizeStatic } from "@fieldloop/runtime";
import { foldModel, ortNode } from "@fieldloop/runtime/node";
import { imageFeeds, residualNetwork } from "./quantize-networks.js";

/** Child process: quantizes the residual network on 100 images and says what that cost. */
const bytes = residualNetwork();
const begin = performance.now();
const { report } = await quantizeStatic(bytes, {
  backend: ortNode,
  fold: foldModel,
  calibration: imageFeeds(100, 31),
  activation: "uint8",
  weight: "int8",
  perChannel: true,
  reduceRange: false,
  method: { kind: "entropy" },
  threadCount: 2,
});
process.stdout.write(
  JSON.stringify({
    seconds: (performance.now() - begin) / 1000,
    // Kilobytes on Linux.
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    bytesBefore: report.bytesBefore,
    bytesAfter: report.bytesAfter,
    floatProducts: report.kernels.float,
  }),
);
