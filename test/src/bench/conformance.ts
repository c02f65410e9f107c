import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { compareWithBaseline, runConformance } from "@fieldloop/runtime/node";
import { progress, type Figure } from "./report.js";

const CASES = "onnx-backend/cases.jsonl.gz";
const BARE = "onnx-backend/ort-node-1.30.0-results.tsv";

/** Operator cases of the ONNX standard through the runtime, beside what bare onnxruntime-node makes of them; none where they are not at hand. */
export async function measureConformance(data: string): Promise<Figure[]> {
  const [cases, bare] = [CASES, BARE].map((name) => join(data, name)) as [string, string];
  if (data === "" || !existsSync(cases) || !existsSync(bare)) {
    progress("operator cases left out: FIELDLOOP_TEST_DATA names no folder with onnx-backend");
    return [];
  }
  progress("operator cases of the ONNX standard");
  const report = await runConformance(cases);
  const count = (isSuch: (result: (typeof report.cases)[number]) => boolean): number =>
    report.cases.filter(isSuch).length;
  const all = { what: "cases in all", value: report.cases.length };
  return [
    {
      id: "conformance_differing",
      what: "operator cases of another status than with bare onnxruntime-node",
      value: compareWithBaseline(report, readFileSync(bare, "utf8")).length,
      unit: "cases",
      peer: all,
      bar: { at: "most", value: 0 },
    },
    {
      id: "conformance_crashed",
      what: "operator cases that ended or outlasted their process",
      value: count(({ status }) => status === "crash" || status === "timeout"),
      unit: "cases",
      peer: all,
      bar: { at: "most", value: 0 },
    },
    {
      id: "conformance_unexplained",
      what: "operator cases that do not pass and give no reason",
      value: count(({ status, why }) => status !== "pass" && why === ""),
      unit: "cases",
      peer: { what: "cases that do not pass", value: count(({ status }) => status !== "pass") },
      bar: { at: "most", value: 0 },
    },
  ];
}
