import { isAbsolute, resolve } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";

/** A source as the command line names it, read and checked: `kind:rest?option=value&…`. */
export type SourceSpec =
  | {
      readonly kind: "folder";
      readonly path: string;
      readonly fps: number;
      readonly loop: boolean;
      readonly drop: "oldest" | "wait";
    }
  | {
      readonly kind: "video";
      readonly path: string;
      readonly fps: number | undefined;
      readonly loop: boolean;
      /** `realtime` plays like a camera and drops; `none` gives every frame as fast as they are taken. */
      readonly pace: "realtime" | "none";
    }
  | { readonly kind: "http"; readonly port: number }
  | {
      readonly kind: "simulator";
      readonly scene: "parts" | "bearing";
      readonly seed: number;
      readonly fps: number;
      readonly condition: string;
      readonly newPartShare: number;
      /** Share of predictions whose truth is told back, and how long that takes. */
      readonly feedback: number;
      readonly feedbackDelayMs: number;
    };

const booleanOption = z
  .enum(["0", "1", "true", "false"])
  .transform((text) => text === "1" || text === "true");
const fpsOption = z.coerce.number().gt(0).max(1000);
const shareOption = z.coerce.number().min(0).max(1);

const folderOptions = z.strictObject({
  fps: fpsOption.default(5),
  loop: booleanOption.default(true),
  drop: z.enum(["oldest", "wait"]).default("wait"),
});
const videoOptions = z.strictObject({
  fps: fpsOption.optional(),
  loop: booleanOption.default(false),
  pace: z.enum(["realtime", "none"]).default("realtime"),
});
const simulatorOptions = z.strictObject({
  seed: z.coerce.number().int().min(0).default(1),
  fps: fpsOption.optional(),
  condition: z.string().max(64).optional(),
  newPartShare: shareOption.default(0),
  feedback: shareOption.default(0.25),
  feedbackDelayMs: z.coerce.number().min(0).max(3_600_000).default(1000),
});

/** What a person may write, for help texts and errors. */
export const SOURCE_FORMS = [
  "folder:PATH?fps=5&loop=1&drop=wait|oldest",
  "video:PATH?fps=10&loop=0&pace=realtime|none",
  "http:PORT",
  "simulator:parts?seed=1&fps=15&condition=normal&feedback=0.25",
  "simulator:bearing?seed=1&fps=20&condition=none|outer-race:0.8",
] as const;

/** @throws FieldloopError `source_unknown` for another kind, `invalid_argument` for an option that is not acceptable */
export function parseSourceSpec(text: string): SourceSpec {
  const match = /^([a-z]+):([^?]*)(?:\?(.*))?$/s.exec(text);
  if (!match) throw unknownSource(text);
  const [, kind, rest, query] = match as unknown as [string, string, string, string | undefined];
  const options = Object.fromEntries(new URLSearchParams(query ?? ""));
  switch (kind) {
    case "folder":
      return { kind, path: pathOf(text, rest), ...read(text, folderOptions, options) };
    case "video": {
      const { fps, ...others } = read(text, videoOptions, options);
      return { kind, path: pathOf(text, rest), fps, ...others };
    }
    case "http": {
      const port = Number(rest);
      if (!/^\d{1,5}$/.test(rest) || port > 65_535) throw refused(text, `"${rest}" is not a port`);
      read(text, z.strictObject({}), options);
      return { kind, port };
    }
    case "simulator": {
      if (rest !== "parts" && rest !== "bearing")
        throw refused(text, `no simulator "${rest}", there are parts and bearing`);
      const { fps, condition, ...others } = read(text, simulatorOptions, options);
      return {
        kind,
        scene: rest,
        fps: fps ?? (rest === "parts" ? 15 : 20),
        condition: condition ?? (rest === "parts" ? "normal" : "none"),
        ...others,
      };
    }
    default:
      throw unknownSource(text);
  }
}

/** The source without its options: what samples carry. */
export function sourceName(spec: SourceSpec): string {
  switch (spec.kind) {
    case "folder":
    case "video":
      return `${spec.kind}:${spec.path}`.slice(0, 200);
    case "http":
      return `http:${spec.port}`;
    case "simulator":
      return `simulator:${spec.scene}`;
  }
}

function read<Schema extends z.ZodType>(
  text: string,
  schema: Schema,
  options: Record<string, string>,
): z.output<Schema> {
  const parsed = schema.safeParse(options);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refused(text, `${issue.path.join(".") || "options"}: ${issue.message}`);
  }
  return parsed.data;
}

function pathOf(text: string, rest: string): string {
  const path = rest.startsWith("file://") ? decodeURIComponent(rest.slice("file://".length)) : rest;
  if (path === "" || path.includes("\0")) throw refused(text, "a path is wanted");
  return isAbsolute(path) ? path : resolve(path);
}

function refused(text: string, what: string): FieldloopError {
  return new FieldloopError("invalid_argument", `Read source "${text.slice(0, 200)}": ${what}`);
}

function unknownSource(text: string): FieldloopError {
  return new FieldloopError(
    "source_unknown",
    `Read source "${text.slice(0, 200)}": wanted ${SOURCE_FORMS.join(", ")}`,
  );
}
