import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hasProgram } from "../host/sources/sources.test.kit.js";
import { until } from "../testing/fleet.test.kit.js";
import { scratchFolder } from "../testing/package.test.kit.js";
import { installService, serviceStatus, uninstallService } from "./install.js";
import { ServiceNotifier } from "./notify.js";
import { type InstallOptions, type Machine, planInstall } from "./plan.js";
import { quoteWord, unitText } from "./unit.js";

const OPTIONS: InstallOptions = {
  name: "press-3",
  scope: "system",
  sources: ["http:8090"],
  server: "https://fleet.example",
  token: "fle_token",
  agentArguments: ["--json"],
  account: undefined,
  accelerator: false,
  devices: [],
  readOnlyPaths: [],
  memoryBytesMax: 2 ** 31,
  root: undefined,
};
const MACHINE: Machine = {
  program: ["/usr/bin/node", "/opt/fieldloop/cli/dist/main.js"],
  groups: ["video", "audio"],
  notifies: true,
};

function textOf(options: Partial<InstallOptions>, machine: Partial<Machine> = {}): string {
  return unitText(planInstall({ ...OPTIONS, ...options }, { ...MACHINE, ...machine }).unit);
}

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(async () => {
  await folder.remove();
});

describe("the unit", () => {
  it("gives devices and groups only to sources that need them", () => {
    const push = textOf({});
    expect(push).toContain("PrivateDevices=yes");
    expect(push).not.toContain("DeviceAllow=");
    expect(push).not.toContain("SupplementaryGroups=");
    const camera = textOf({ sources: ["camera:0"] });
    expect(camera).toContain("DeviceAllow=char-video4linux rw");
    expect(camera).toContain("SupplementaryGroups=video\n");
    expect(camera).not.toContain("PrivateDevices=");
    expect(textOf({ sources: ["audio:alsa:hw:0"] })).toContain("DeviceAllow=char-alsa rw");
    // There is no group render here, and a unit that names it would not start.
    expect(textOf({ accelerator: true })).toContain("SupplementaryGroups=video\n");
    expect(textOf({ accelerator: true })).toContain("DeviceAllow=char-drm rw");
  });

  it("never forbids memory that is written and run, and never holds a secret", () => {
    const text = textOf({ sources: ["a=rtsp:rtsp://cam/live?login=/etc/cam.login&fps=5", "b=http:1"] });
    expect(text).not.toMatch(/^MemoryDenyWriteExecute=/m);
    expect(text).not.toContain("fle_token");
    expect(text).toContain("LoadCredential=login-a:/etc/cam.login\n");
    expect(text).toContain("rtsp://cam/live?login=%d/login-a&fps=5");
    expect(() => textOf({ sources: ["rtsp://u:s3cret@cam/live"] })).toThrow(/login=FILE$/);
    expect(() => textOf({ sources: ["rtsp://u:s3cret@cam/live"] })).toThrow(/^(?!.*s3cret)/);
  });

  it("names files so that a service finds them", () => {
    const text = textOf({ sources: ["a=folder:pictures?fps=2", "b=csv:../x.csv?follow=1"] });
    expect(text).toContain(`--source "a=folder:${process.cwd()}/pictures?fps=2"`.replaceAll('"', ""));
    expect(text).toContain(`b=csv:${join(process.cwd(), "../x.csv")}?follow=1`);
    const user = textOf({ scope: "user", sources: ["rtsp://cam/live?login=cam.login&fps=5"] });
    expect(user).toContain(
      `?login=${encodeURIComponent(join(process.cwd(), "cam.login"))}&fps=5`.replaceAll("%", "%%"),
    );
  });

  it.each(["--enroll", "--enroll=fle_x", "--source", "--state", "--name=other"])(
    "takes no %s among the agent's further options",
    (word) => {
      expect(() => textOf({ agentArguments: [word] })).toThrow(/stands before --/);
    },
  );

  it("hides homes, but for what the agent reads there", () => {
    expect(textOf({})).toContain("ProtectHome=yes");
    const text = textOf(
      {
        sources: ["a=folder:/home/u/pictures", "b=csv:/root/log/x.csv?follow=1"],
        readOnlyPaths: ["/home/u/more"],
      },
      { program: ["/home/u/.nvm/bin/node", "/home/u/lib/node_modules/fieldloop/dist/main.js"] },
    );
    expect(text).toContain("ProtectHome=tmpfs");
    expect(text).toContain(
      "BindReadOnlyPaths=-/home/u/.nvm/bin/node -/home/u/lib/node_modules -/home/u/more -/home/u/pictures -/root/log\n",
    );
  });

  it("asks a user's service manager for no more than it can do", () => {
    const text = textOf({ scope: "user" });
    expect(text).toContain("NoNewPrivileges=yes");
    expect(text).toContain("WantedBy=default.target");
    expect(text).not.toMatch(/DynamicUser|ProtectSystem|DeviceAllow|=-\+/);
  });

  it("has no watchdog where nothing can tell systemd", () => {
    const text = textOf({}, { notifies: false });
    expect(text).toContain("Type=exec");
    expect(text).not.toMatch(/WatchdogSec|ExecStartPost/);
  });

  it.each([
    ["plain-word", "plain-word"],
    ["two words", '"two words"'],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ["100%$HOME", '"100%%$$HOME"'],
    ["a;b", '"a;b"'],
    ["", '""'],
  ])("quotes %j", (word, quoted) => {
    expect(quoteWord(word)).toBe(quoted);
  });

  it.each([
    [{ name: "../x" }, "device id"],
    [{ token: "two\nlines" }, "token"],
    [{ sources: ["csv:-"] }, "standard input"],
    [{ sources: [] }, "0 of them"],
    [{ scope: "user" as const, account: "x" }, "as that user"],
    [{ sources: ["folder:/a\n[Service]"] }, "line"],
    [{ devices: ["/dev/x rw\nUser=root"] }, "line"],
  ])("is refused for %j", (options, what) => {
    expect(() => textOf(options)).toThrow(what);
  });
});

describe.skipIf(!hasProgram("systemd-analyze", ["--version"], "checks of the unit file"))(
  "systemd-analyze",
  () => {
    it.each([
      ["nothing but pushes", {}],
      [
        "a camera, a GPU and a login",
        { accelerator: true, sources: ["a=camera:0", "b=rtsp:rtsp://c/l?login=/etc/a b"] },
      ],
      ["homes and odd words", { sources: ['folder:/home/u/100% of $it; "all"'] }],
      ["an account", { account: "root" }],
      ["a user", { scope: "user" as const }],
    ])("finds nothing wrong with a unit for %s", (_, options) => {
      const program = [process.execPath, new URL(import.meta.url).pathname];
      const path = join(folder.path, "fieldloop-agent-press-3.service");
      writeFileSync(path, textOf(options, { program }));
      const scope = "scope" in options ? ["--user"] : [];
      const run = spawnSync("systemd-analyze", ["verify", "--man=no", ...scope, path], {
        encoding: "utf8",
        env: { ...process.env, XDG_RUNTIME_DIR: folder.path },
      });
      const complaints = run.stderr.split("\n").filter((line) => line.includes("fieldloop-agent"));
      expect(complaints).toEqual([]);
    });

    it("rates its exposure as low", () => {
      const path = join(folder.path, "fieldloop-agent-press-3.service");
      writeFileSync(path, textOf({}));
      const help = execFileSync("systemd-analyze", ["--help"], { encoding: "utf8" });
      if (!help.includes("--offline")) {
        console.warn("skipped: exposure of the unit, because this systemd-analyze cannot judge a file");
        return;
      }
      const report = execFileSync("systemd-analyze", ["security", "--offline=true", "--no-pager", path], {
        encoding: "utf8",
      });
      const exposure = Number(/exposure level[^:]*: *([\d.]+)/.exec(report)?.[1]);
      expect(exposure).toBeLessThan(2.5);
    });
  },
);

describe.skipIf(!hasProgram("systemctl", ["--version"], "installing the unit"))("install", () => {
  const place = { name: "press-3", scope: "system" as const };

  it("writes, enables, does nothing twice, and takes away all but the state", async () => {
    const root = folder.path;
    const plan = planInstall({ ...OPTIONS, root }, MACHINE);
    const report = await installService(plan, { start: true });
    expect(report).toMatchObject({ changed: true, enabled: true, started: false });
    const token = join(root, "etc/fieldloop/press-3.env");
    expect(readFileSync(token, "utf8")).toBe("FIELDLOOP_ENROLL=fle_token\n");
    expect(statSync(token).mode & 0o777).toBe(0o600);
    const link = join(root, "etc/systemd/system/multi-user.target.wants/fieldloop-agent-press-3.service");
    expect(readFileSync(join(root, "etc/systemd/system/fieldloop-agent-press-3.service"), "utf8")).toBe(
      unitText(plan.unit),
    );
    expect(await installService(plan, { start: true })).toMatchObject({ changed: false, enabled: true });
    expect(await serviceStatus({ ...place, root })).toMatchObject({ installed: true, tokenWaits: true });
    const state = join(root, "var/lib/fieldloop/press-3");
    mkdirSync(state, { recursive: true });
    writeFileSync(join(state, "identity.json"), "{}");
    expect(await uninstallService({ ...place, root }, { purge: false })).toMatchObject({
      removed: true,
      stateRemoved: false,
    });
    expect([existsSync(link), existsSync(token), existsSync(state)]).toEqual([false, false, true]);
    expect(await uninstallService({ ...place, root }, { purge: true })).toMatchObject({
      removed: false,
      stateRemoved: true,
    });
    expect(existsSync(state)).toBe(false);
  });

  it("does not touch a unit that somebody else wrote", async () => {
    const root = folder.path;
    const path = join(root, "etc/systemd/system/fieldloop-agent-press-3.service");
    mkdirSync(join(root, "etc/systemd/system"), { recursive: true });
    writeFileSync(path, "[Service]\nExecStart=/bin/true\n");
    const plan = planInstall({ ...OPTIONS, root }, MACHINE);
    await expect(installService(plan, { start: false })).rejects.toMatchObject({ code: "conflict" });
    await expect(uninstallService({ ...place, root }, { purge: true })).rejects.toMatchObject({
      code: "conflict",
    });
    expect(readFileSync(path, "utf8")).toContain("/bin/true");
  });
});

/** A datagram socket of the Unix family, as systemd has one; prints what it is sent. */
const RECEIVER = `
use Socket; $| = 1;
socket(my $s, PF_UNIX, SOCK_DGRAM, 0); bind($s, sockaddr_un($ARGV[0])); print "bound\\n";
while (defined recv($s, my $m, 4096, 0)) { print "$m\\n"; }`;

const canNotify =
  hasProgram("systemd-notify", ["--version"], "messages to systemd") &&
  hasProgram("perl", ["-v"], "messages to systemd");

describe("ServiceNotifier", () => {
  it("does nothing where no systemd asks", async () => {
    const notifier = new ServiceNotifier({});
    await notifier.ready("x");
    await notifier.stopping();
    expect(notifier.failed).toBe(0);
  });

  it.skipIf(!canNotify)("says ready, lives, and stops", async () => {
    const socket = join(folder.path, "notify");
    const receiver = spawn("perl", ["-e", RECEIVER, socket], { stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    receiver.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString("utf8");
    });
    try {
      await until(() => said.includes("bound"), "the socket is bound");
      const notifier = new ServiceNotifier({ NOTIFY_SOCKET: socket, WATCHDOG_USEC: "300000" });
      await notifier.ready("press-3, boot 4");
      await until(() => said.includes("READY=1") && said.includes("STATUS=press-3, boot 4"), "it is ready");
      await until(() => said.split("WATCHDOG=1").length > 2, "it lives");
      await notifier.stopping();
      await until(() => said.includes("STOPPING=1"), "it stops");
      expect(notifier.failed).toBe(0);
    } finally {
      receiver.kill("SIGKILL");
    }
  });
});
