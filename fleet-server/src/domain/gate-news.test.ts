import type { GateVerdict } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { isNews } from "./gate-news.js";

type Word = GateVerdict["verdict"];

function look(verdict: Word, time: number, tests: Readonly<Record<string, Word>> = {}): GateVerdict {
  const numbers = { value: null, limit: null, low: null, high: null, confidence: null, eValue: null };
  return {
    verdict,
    time,
    tests: Object.entries(tests).map(([test, word]) => ({
      ...{ test, verdict: word, detail: "", canary: null, control: null },
      ...numbers,
    })),
  };
}

describe("a look at a gate is news", () => {
  it.each<[string, GateVerdict, GateVerdict | null, boolean]>([
    ["the first", look("inconclusive", 20), null, true],
    ["the first since a resume", look("inconclusive", 20), look("inconclusive", 9), true],
    ["the same again", look("inconclusive", 20), look("inconclusive", 19), false],
    ["decided now", look("pass", 20), look("inconclusive", 19), true],
    ["undecided again", look("inconclusive", 20), look("pass", 19), true],
    [
      "another test passes, the gate still waits",
      look("inconclusive", 20, { crashes: "pass", accuracy: "inconclusive" }),
      look("inconclusive", 19, { crashes: "inconclusive", accuracy: "inconclusive" }),
      false,
    ],
    [
      "another test fails",
      look("fail", 20, { crashes: "fail", accuracy: "fail" }),
      look("fail", 19, { crashes: "fail", accuracy: "inconclusive" }),
      true,
    ],
    [
      "the same tests fail, in another order",
      look("fail", 20, { crashes: "fail", accuracy: "fail" }),
      look("fail", 19, { accuracy: "fail", crashes: "fail" }),
      false,
    ],
  ])("%s", (_name, verdict, before, news) => {
    expect(isNews(verdict, before, 10)).toBe(news);
  });
});
