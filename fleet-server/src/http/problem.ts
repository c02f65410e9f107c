import {
  ERROR_CODES,
  FieldloopError,
  toFieldloopError,
  type ErrorCode,
  type Problem,
} from "@fieldloop/protocol";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { z } from "zod";
import type { Logger } from "../context.js";
import type { AppEnv } from "./env.js";

export const PROBLEM_TYPE = "application/problem+json";

/** RFC 9457 problem details of a coded error. Of what carries no code only "it failed" is told; the log has the rest. */
export function problemOf(error: FieldloopError): Problem {
  const { title, status } = ERROR_CODES[error.code];
  const issues = error.detail?.issues as Problem["issues"];
  return {
    type: `urn:fieldloop:error:${error.code}`,
    title,
    status,
    code: error.code,
    detail: error.code === "internal" ? title : error.message,
    ...(issues ? { issues } : {}),
  };
}

/** A refused body, query or parameter as one error with an issue for each field. */
export function validationError(error: z.core.$ZodError, where: string): FieldloopError {
  const issues = error.issues.slice(0, 50).map((issue) => ({
    path: issue.path.map(String).join("."),
    message: issue.message,
  }));
  const first = issues[0];
  return new FieldloopError(
    where === "json" ? "invalid_body" : "invalid_argument",
    `Read ${where === "json" ? "body" : where}: ${first ? `"${first.path}" ${first.message}` : "it does not match its schema"}`,
    { detail: { issues } },
  );
}

/** The application's error handler: everything thrown becomes one problem document. */
export function answerError(error: Error, c: Context<AppEnv>, logger: Logger): Response {
  const coded = fromHono(error);
  const problem = problemOf(coded);
  if (problem.status >= 500) {
    logger.error({ err: error, method: c.req.method, path: c.req.path, code: coded.code }, "request failed");
  }
  // What is left of a refused body is not read: the socket closes after the answer.
  if (coded.code === "limit_exceeded") c.header("Connection", "close");
  if (coded.code === "rate_limited") c.header("Retry-After", "60");
  if (coded.code === "unauthenticated") c.header("WWW-Authenticate", 'Bearer realm="fieldloop"');
  return c.body(JSON.stringify(problem), problem.status as ContentfulStatusCode, {
    "Content-Type": PROBLEM_TYPE,
  });
}

function fromHono(error: Error): FieldloopError {
  if (isCut(error)) {
    return new FieldloopError("cancelled", "Read request: the connection ended before the body did", {
      cause: error,
    });
  }
  if (!(error instanceof HTTPException)) return toFieldloopError(error);
  const byStatus: Partial<Record<number, ErrorCode>> = {
    400: "invalid_body",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    413: "limit_exceeded",
    415: "unsupported_media_type",
  };
  return new FieldloopError(byStatus[error.status] ?? "internal", `Read request: ${error.message}`, {
    cause: error,
  });
}

/** What Node says of a request whose sender went away; nobody is left to read the answer, and nothing here has failed. */
function isCut(error: Error): boolean {
  return "code" in error && error.code === "ECONNRESET" && error.message === "aborted";
}
