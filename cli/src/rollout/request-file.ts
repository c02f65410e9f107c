import { createReadStream } from "node:fs";
import { FieldloopError, LIMITS, rolloutRequestSchema, type RolloutRequest } from "@fieldloop/protocol";
import type { z } from "zod";
import { isBody, type Body } from "./body.js";

/**
 * The request in a file, or what standard input says where the path is `-`; as it stands, not checked.
 * @throws FieldloopError `not_found`, `limit_exceeded`, `invalid_argument` for anything but a JSON object
 */
export async function readRequest(
  path: string,
  input: AsyncIterable<string | Uint8Array> = process.stdin,
): Promise<Body> {
  const name = path === "-" ? "standard input" : `"${path}"`;
  const text = await readAll(path === "-" ? input : createReadStream(path), name);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("invalid_argument", `Read rollout request: ${name} is not JSON: ${reason}`, {
      cause,
    });
  }
  if (!isBody(value))
    throw new FieldloopError("invalid_argument", `Read rollout request: ${name} is no JSON object`);
  return value;
}

async function readAll(source: AsyncIterable<string | Uint8Array>, name: string): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of source) {
      chunks.push(Buffer.from(chunk));
      bytes += chunks.at(-1)!.length;
      if (bytes > LIMITS.jsonBodyBytesMax)
        throw new FieldloopError(
          "limit_exceeded",
          `Read rollout request: ${name} has more than ${LIMITS.jsonBodyBytesMax} bytes`,
        );
    }
  } catch (cause) {
    if (cause instanceof FieldloopError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("not_found", `Read rollout request: ${reason}`, { cause });
  }
  return Buffer.concat(chunks).toString("utf8");
}

/**
 * The request with every default, checked before the server sees it.
 * @throws FieldloopError `invalid_body` with the path of the first thing that is wrong: a field that is not one, too
 */
export function checkRequest(request: Body): RolloutRequest {
  const parsed = rolloutRequestSchema.safeParse(request);
  if (!parsed.success) {
    const { path, message } = mostTelling(parsed.error.issues[0]!, request);
    throw refusal(path, message);
  }
  const unknown = unknownField(request, parsed.data, []);
  if (unknown) throw refusal(unknown, "is no field of a request");
  return parsed.data;
}

function refusal(path: readonly PropertyKey[], message: string): FieldloopError {
  return new FieldloopError("invalid_body", `Create rollout: "${path.map(String).join(".")}" ${message}`);
}

type Issue = Pick<z.core.$ZodIssue, "path" | "message">;

/**
 * Of a choice, what is wrong with the form that was meant: the one that lacks the fewest fields. The schema alone says of a choice
 * that nothing fits.
 */
function mostTelling(issue: z.core.$ZodIssue, request: unknown): Issue {
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return issue;
  const part = valueAt(request, issue.path);
  const lacks = (issues: readonly z.core.$ZodIssue[]): number =>
    issues.filter(({ path }) => valueAt(part, path) === undefined).length;
  const ranked = issue.errors.toSorted((a, b) => lacks(a) - lacks(b) || a.length - b.length);
  const [first] = ranked[0]!;
  if (!first || lacks(ranked[0]!) > 0) return issue;
  const inner = mostTelling(first, part);
  return { path: [...issue.path, ...inner.path], message: inner.message };
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inside, key) => (typeof inside === "object" && inside !== null ? Reflect.get(inside, key) : undefined),
    value,
  );
}

/** A schema leaves out what it does not know: whoever misspelt a field would never hear of it. */
function unknownField(
  given: unknown,
  known: unknown,
  path: readonly string[],
): readonly string[] | undefined {
  if (typeof given !== "object" || given === null || typeof known !== "object" || known === null)
    return undefined;
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const here = [...path, key];
    if (!Object.hasOwn(known, key)) return here;
    const deeper = unknownField(value, Reflect.get(known, key), here);
    if (deeper) return deeper;
  }
  return undefined;
}
