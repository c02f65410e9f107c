import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import { readJsonFile, unlinkIfThere, writeJsonFile } from "./files.js";

const processSchema = z.object({ pid: z.int().min(1), startedAt: z.string() });
type ProcessNote = z.output<typeof processSchema>;

/**
 * One control process, and one host, per state folder. A process id alone proves nothing (ids are used again): the time
 * at which the process started is noted with it.
 */
export async function lockState(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, "control.pid.json");
  const other = await readJsonFile(path, processSchema, () => undefined);
  if (other && other.pid !== process.pid && isSame(other)) {
    throw new FieldloopError(
      "conflict",
      `Start agent: process ${other.pid} runs with the state folder "${directory}" already`,
    );
  }
  await writeJsonFile(path, noteOf(process.pid));
  return () => unlinkIfThere(path);
}

export async function noteHost(directory: string, pid: number): Promise<void> {
  await writeJsonFile(join(directory, "host.pid.json"), noteOf(pid));
}

/** Ends a host that outlived its control process: it would hold the camera, or a port. True where there was one. */
export async function endLeftoverHost(directory: string): Promise<boolean> {
  const note = await readJsonFile(join(directory, "host.pid.json"), processSchema, () => undefined);
  if (!note || !isSame(note)) return false;
  try {
    process.kill(note.pid, "SIGKILL");
    return true;
  } catch {
    // It ended meanwhile.
    return false;
  }
}

function noteOf(pid: number): ProcessNote {
  return { pid, startedAt: startTime(pid) ?? "unknown" };
}

function isSame(note: ProcessNote): boolean {
  const started = startTime(note.pid);
  return started !== undefined && started !== "unknown" && started === note.startedAt;
}

/** Field 22 of `/proc/{pid}/stat` (proc(5)): clock ticks from the boot of the machine. `unknown` without /proc. */
function startTime(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command name, field 2, may hold spaces and brackets: count from the last bracket.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return process.platform === "linux" ? undefined : "unknown";
  }
}
