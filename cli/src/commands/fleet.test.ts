import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServerHandle } from "@fieldloop/fleet-server";
import { packagePath } from "@fieldloop/models";
import type { Dataset, Facts, ModelVersion, RolloutView, Webhook } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runHere, startServerHere, type Outcome } from "../testing/command-line.test.kit.js";

const FACTS: Facts = {
  ...{ arch: "x64", platform: "linux", cpuModel: "test", cpuCount: 2, cpuFlags: [], memoryBytes: 1 << 30 },
  ...{ executionProviders: ["cpu"], nodeVersion: "20.20.2", runtimeVersion: "1.30.0", timeZone: "UTC" },
  ...{ deviceClass: "linux-x64", opsetMax: 21, irVersionMax: 10, manifestSchemaMax: 1 },
};
let dir: string;
let server: ServerHandle;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-cli-fleet-"));
  server = await startServerHere(dir);
}, 60_000);
afterAll(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Runs one command line in this process. */
const fieldloop = (...args: readonly string[]): Promise<Outcome> => runHere(...args);

describe("commands over the fleet server's API", () => {
  it("publish a package, and again without sending anything twice", async () => {
    const packageDir = packagePath("parts");
    const first = await fieldloop("model", "publish", packageDir, "--json");
    expect(first.code).toBe(0);
    const version = JSON.parse(first.out) as ModelVersion;
    expect(version).toMatchObject({ model: "parts", evidence: "none", runningOn: 0 });
    expect(JSON.parse((await fieldloop("model", "publish", packageDir, "--json")).out)).toEqual(version);
  }, 60_000);

  it.each([
    [["rollout", "list"], "ROLLOUT"],
    [["webhook", "list"], "WEBHOOK"],
    [["group", "list"], "GROUP"],
    [["group", "show", "all"], "every device"],
    [["token", "list"], "TOKEN"],
    [["sample", "list", "--wrong", "yes"], "SAMPLE"],
    [["sample", "statistics"], "STRATUM"],
    [["dataset", "list"], "DATASET"],
    [["train", "list"], "RUN"],
    [["evaluate", "list", "--model", "parts"], "EVALUATION"],
  ])("%j prints a table, and a document with --json", async (args, heading) => {
    expect((await fieldloop(...args)).out).toContain(heading);
    expect(JSON.parse((await fieldloop(...args, "--json")).out)).toBeDefined();
  });

  it("change a webhook: what is named, and its secret, shown this once", async () => {
    const made = JSON.parse(
      (await fieldloop("webhook", "create", "https://a.example/", "--json")).out,
    ) as Webhook;
    const change = (...args: string[]): Promise<Outcome> =>
      fieldloop("webhook", "update", made.webhook, ...args);
    const url = await change(
      "--url",
      "https://b.example/",
      "--events",
      "io.fieldloop.rollout.state",
      "--json",
    );
    expect(JSON.parse(url.out)).toMatchObject({ url: "https://b.example/", enabled: true });
    expect((await change("--disable")).err).toContain("https://b.example/, disabled");
    expect(JSON.parse((await change("--enable", "--events", "all", "--json")).out)).toMatchObject({
      enabled: true,
      events: [],
    });
    const rotated = await change("--rotate-secret");
    expect(rotated.err).toMatch(/secret \(shown this once\): whsec_/);
    expect(rotated.err).toContain("signs beside it until");
    const last = JSON.parse((await change("--rotate-secret", "at-once", "--json")).out) as Webhook;
    expect(last.secret).toMatch(/^whsec_/);
    expect([last.previousSecretUntil, last.secret === made.secret]).toEqual([null, false]);
    expect(await change()).toMatchObject({ code: 2, err: expect.stringContaining("nothing to change") });
    expect((await change("--url", "https://127.0.0.1/")).err).toContain("invalid_argument");
    expect((await change("--enable", "--disable")).code).toBe(2);
  });

  it("make, show, replace and remove groups", async () => {
    const made = await fieldloop("group", "set", "lyon", "--select", "site=lyon,line=3", "--json");
    const lyon = { group: "lyon", devices: null, selector: { site: "lyon", line: "3" } };
    expect(JSON.parse(made.out)).toEqual(lyon);
    expect((await fieldloop("group", "list")).out).toContain("every device with site=lyon line=3");
    expect(JSON.parse((await fieldloop("group", "show", "lyon", "--json")).out)).toEqual({
      ...lyon,
      members: [],
    });
    expect((await fieldloop("group", "set", "lyon", "--select", "site=lyon")).err).toBe(
      "lyon: every device with site=lyon\n",
    );
    expect((await fieldloop("group", "remove", "lyon")).err).toBe("lyon: removed\n");
    expect(JSON.parse((await fieldloop("group", "list", "--json")).out)).toEqual([]);
  });

  it("make a token, show its secret this once, say whose it is, and revoke it", async () => {
    const ann = await fieldloop("token", "create", "ann-laptop", "--role", "operator", "--person", "ann");
    expect(ann.err).toContain("operator, speaks for ann");
    const secret = /^flt_\S+\n$/.exec(ann.out)![0].trim();
    const program = await fieldloop("token", "create", "ci", "--role", "viewer", "--json");
    expect(JSON.parse(program.out)).toEqual({
      ...{ name: "ci", role: "viewer", person: null },
      token: expect.stringMatching(/^flt_/),
    });
    expect((await fieldloop("token", "create", "nightly", "--role", "viewer")).err).toContain("a program's");
    expect((await fieldloop("group", "list", "--token", secret)).code).toBe(0);
    expect(await fieldloop("token", "list", "--token", secret)).toMatchObject({
      code: 1,
      err: expect.stringContaining("forbidden"),
    });
    const listed = await fieldloop("token", "list");
    expect(listed.out).toMatch(/^ann-laptop +operator +ann +ann .* valid$/m);
    expect(listed.out).toMatch(/^ci +viewer +a program +admin .* valid$/m);
    expect(listed.out).not.toContain(secret);
    expect((await fieldloop("token", "revoke", "ann-laptop")).err).toContain("revoked");
    expect((await fieldloop("group", "list", "--token", secret)).err).toContain("unauthenticated");
    expect((await fieldloop("token", "list")).out).toMatch(/^ann-laptop .* revoked$/m);
  });

  it("save a dataset and say why it cannot be frozen yet", async () => {
    const made = await fieldloop(
      "dataset",
      "create",
      "dark",
      "--model",
      "parts",
      "--devices",
      "cam-a,cam-b",
      "--json",
    );
    const { dataset, query } = JSON.parse(made.out) as Dataset;
    expect(query).toEqual({ labelled: true, devices: ["cam-a", "cam-b"] });
    expect(await fieldloop("dataset", "snapshot", dataset)).toMatchObject({
      code: 1,
      err: expect.stringContaining("training_no_labels"),
    });
  });

  it.each<[string[], number, string]>([
    [["rollout", "create", "parts@1", "--group", "all"], 1, "rollout_needs_evidence"],
    [
      ["rollout", "create", "parts@1", "--group", "all", "--force", "the first version here"],
      2,
      "invalid_argument",
    ],
    [["rollout", "create", "parts@1"], 2, "invalid_argument"],
    [["rollout", "create", "parts", "--group", "all"], 2, "invalid_argument"],
    [["rollout", "create", "parts@1", "--group", "all", "--on-failure", "panic"], 2, "none of pause"],
    [["rollout", "create", "parts@1", "--select", "site"], 2, "KEY=VALUE"],
    [["rollout", "create", "parts@1", "--group", "all", "--approve-waves", "2"], 2, "--waves has none"],
    [
      ["rollout", "create", "parts@1", "--group", "all", "--waves", "1,100%", "--approve-waves", "3"],
      2,
      "names wave 3",
    ],
    [["group", "set", "lyon"], 2, "give --devices or --select"],
    [["group", "set", "lyon", "--devices", "a", "--select", "site=lyon"], 2, "cannot be used with"],
    [["group", "set", "lyon", "--devices", "cam-none"], 1, "not_found"],
    [["group", "set", "all", "--select", "site=lyon"], 2, "is every device"],
    [["group", "remove", "all"], 2, "is every device"],
    [["group", "show", "none"], 1, "not_found"],
    [["token", "create", "bob"], 2, "--role"],
    [["token", "create", "Bob", "--role", "viewer"], 2, "invalid_body"],
    [["token", "revoke", "nobody"], 1, "not_found"],
    [["rollout", "pause", "rol_none"], 1, "not_found"],
    [["rollout", "show", "../x"], 2, "invalid_argument"],
    [["sample", "label", "smp_00000000x", "bolt"], 1, "not_found"],
    [["sample", "list", "--order", "best"], 2, "invalid_argument"],
    [["train", "start", "parts@1"], 2, "--snapshot"],
    [["train", "start", "parts@1", "--snapshot", "a".repeat(64)], 1, "not_found"],
    [["train", "watch", "trn_none"], 1, "not_found"],
    [["evaluate", "run", "parts@1", "--base", "1", "--snapshot", "a".repeat(64)], 2, "itself"],
    [["model", "publish", "/nonexistent"], 1, "not_found"],
  ])("%j exits with %i", async (args, code, text) => {
    const outcome = await fieldloop(...args);
    expect(outcome.err).toContain(text);
    expect(outcome.code).toBe(code);
  });

  it("refuse a reason that is too short as a wrong call", async () => {
    const outcome = await fieldloop("rollout", "create", "parts@1", "--group", "all", "--force", "short");
    expect(outcome).toMatchObject({ code: 2, err: expect.stringContaining("forceReason") });
  });

  it("list rollouts in one state, and do not watch one that was aborted for ever", async () => {
    const { token } = JSON.parse((await fieldloop("device", "enroll-token", "--json")).out) as {
      token: string;
    };
    const enrolled = await fetch(`${server.httpUrl}/api/v1/enrol`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token, device: "cam-1", facts: FACTS }),
    });
    expect(enrolled.ok).toBe(true);
    const made = await fieldloop(
      ...["rollout", "create", "--config", '{"randomShare":0.1}', "--devices", "cam-1", "--draft", "--json"],
      ...["--window", "22:00+240", "--window", "sa+su@08:00+60"],
    );
    const { rollout, request } = JSON.parse(made.out) as RolloutView;
    expect(request.schedule.windows).toEqual([
      { days: [], start: "22:00", minutes: 240 },
      { days: [6, 0], start: "08:00", minutes: 60 },
    ]);
    const inState = async (state: string): Promise<string[]> => {
      const { out } = await fieldloop("rollout", "list", "--state", state, "--json");
      return (JSON.parse(out) as RolloutView[]).map((one) => one.rollout);
    };
    expect([await inState("draft"), await inState("aborted")]).toEqual([[rollout], []]);
    expect((await fieldloop("rollout", "abort", rollout, "--reason", "not wanted")).code).toBe(0);
    expect([await inState("draft"), await inState("aborted")]).toEqual([[], [rollout]]);
    expect(await fieldloop("rollout", "watch", rollout)).toMatchObject({
      code: 1,
      err: expect.stringContaining("aborted: not wanted"),
    });
  });

  it.each(["rollout", "group", "token", "webhook", "sample", "dataset", "train", "evaluate"])(
    "%s has help for each of its commands",
    async (name) => {
      const { code, out } = await fieldloop(name, "--help");
      expect(code).toBe(0);
      for (const [, command] of out.matchAll(/^ {2}([a-z-]+)(?: |$)/gm)) {
        if (command === "help") continue;
        expect((await fieldloop(name, command!, "--help")).out).toContain("--json");
      }
    },
  );
});
