import { ERROR_CODES, type ErrorCode } from "@fieldloop/protocol";

/**
 * The code of a failure that a server reported.
 * @param status HTTP status, or the one that a gRPC status stands for
 * @param code the code that a server of this project adds
 */
export function codeOfServer(status: number, code: string | undefined): ErrorCode {
  if (code !== undefined && Object.hasOwn(ERROR_CODES, code) && code !== "internal") return code as ErrorCode;
  switch (status) {
    case 404:
      return "not_found";
    case 400:
    case 422:
      return "tensor_invalid";
    case 401:
      return "unauthenticated";
    case 403:
      return "forbidden";
    case 413:
      return "limit_exceeded";
    case 429:
      return "rate_limited";
    case 502:
    case 503:
      return "unavailable";
    case 504:
      return "timed_out";
    default:
      return "model_run_failed";
  }
}
