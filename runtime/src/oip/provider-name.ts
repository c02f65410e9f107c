import { FieldloopError } from "@fieldloop/protocol";

/** How a server of the Open Inference Protocol v2 is reached. */
export type OipTransport = "http" | "https" | "unix" | "grpc" | "grpcs";

/** A model on a server, as an execution provider's name says it. */
export interface OipEndpoint {
  readonly transport: OipTransport;
  /** `host:port`, or the path of the socket. */
  readonly authority: string;
  /** Path before `/v2`, without a slash at its end; only over HTTP. */
  readonly basePath: string;
  readonly model: string;
  /** Undefined leaves the choice to the server. */
  readonly version: string | undefined;
}

const NAME_LENGTH_MAX = 1024;
const PATTERN =
  /^oip\+(http|https|grpc|grpcs):\/\/([^/?#@\s]+)((?:\/[^?#\s]*?)?)\/v2\/models\/([^/?#\s]+)(?:\/versions\/([^/?#\s]+))?$/;
const UNIX_PATTERN = /^oip\+unix:(\/[^\s:?#]+):\/v2\/models\/([^/?#\s]+)(?:\/versions\/([^/?#\s]+))?$/;

/** True for `oip+…`, whether or not the rest of the name is well formed. */
export function isOipProvider(executionProvider: string): boolean {
  return executionProvider.startsWith("oip+");
}

/**
 * Reads the name of an execution provider that is a served model:
 * `oip+http://HOST:PORT/v2/models/NAME[/versions/VERSION]`, the same with `https`, `grpc` (without TLS) or `grpcs`, or
 * `oip+unix:/PATH/OF/SOCKET:/v2/models/NAME`.
 * @throws FieldloopError `invalid_argument`
 */
export function parseOipProvider(executionProvider: string): OipEndpoint {
  const fail = (): FieldloopError =>
    new FieldloopError(
      "invalid_argument",
      `Open execution provider "${executionProvider.slice(0, NAME_LENGTH_MAX)}": wanted oip+http://HOST:PORT/v2/models/NAME, oip+grpc://HOST:PORT/v2/models/NAME or oip+unix:/SOCKET:/v2/models/NAME`,
    );
  if (executionProvider.length > NAME_LENGTH_MAX) throw fail();
  const decode = (text: string): string => {
    try {
      return decodeURIComponent(text);
    } catch {
      throw fail();
    }
  };
  const unix = UNIX_PATTERN.exec(executionProvider);
  if (unix !== null) {
    const [, authority, model, version] = unix;
    return {
      transport: "unix",
      authority: authority!,
      basePath: "",
      model: decode(model!),
      version: version === undefined ? undefined : decode(version),
    };
  }
  const match = PATTERN.exec(executionProvider);
  if (match === null) throw fail();
  const [, transport, authority, basePath, model, version] = match;
  return {
    transport: transport as OipTransport,
    authority: authority!,
    basePath: basePath!,
    model: decode(model!),
    version: version === undefined ? undefined : decode(version),
  };
}
