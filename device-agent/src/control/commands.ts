import {
  COMMAND_TYPE,
  decodeMessage,
  FieldloopError,
  toFieldloopError,
  verify,
  type Command,
  type EventData,
  type PublicKey,
} from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";

export interface CommandOptions {
  readonly device: string;
  readonly directorKeys: () => readonly PublicKey[];
  readonly clock: Clock;
  readonly emit: (event: EventData) => void;
  readonly run: (action: Command["action"]) => Promise<void>;
}

/**
 * One-shot commands: signed like the desired state, for this device, fresh, and each once (QoS 1 may bring it twice).
 * A command that is not the fleet's is refused without an answer; any other is answered by an event.
 */
export class Commands {
  readonly #options: CommandOptions;
  readonly #seen = new Set<string>();

  constructor(options: CommandOptions) {
    this.#options = options;
  }

  /** @throws FieldloopError `package_signature_*`, `forbidden` or a codec's code where it must not be answered */
  async receive(envelope: Uint8Array): Promise<void> {
    const { device, directorKeys, clock, emit } = this.#options;
    const command = decodeMessage("command", verify(COMMAND_TYPE, envelope, directorKeys()));
    if (command.device !== device) {
      throw new FieldloopError(
        "forbidden",
        `Run command: it is for "${command.device}", this is "${device}"`,
      );
    }
    if (this.#seen.has(command.command)) return;
    this.#seen.add(command.command);
    if (this.#seen.size > AGENT_LIMITS.commandsRememberedMax) {
      this.#seen.delete(this.#seen.values().next().value!);
    }
    try {
      if (clock.now() > command.expires) {
        throw new FieldloopError("timed_out", `Run command "${command.command}": it came after it expired`);
      }
      await this.#options.run(command.action);
      emit({ type: "command_result", command: command.command });
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      emit({
        type: "command_result",
        command: command.command,
        error: { code, message: message.slice(0, 2_000) },
      });
    }
  }
}
