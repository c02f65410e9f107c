import { Readable } from "node:stream";

interface OutgoingPacket {
  readonly cmd: string;
  /** Given at the first delivery; a message that was only queued has none. */
  readonly messageId?: number;
  dup: boolean;
}

export interface OutgoingPersistence {
  outgoingStream(client: { id: string }): AsyncIterable<OutgoingPacket>;
}

/** A PUBLISH that is delivered again carries DUP [MQTT-3.3.1-1]; the broker leaves it out when it empties a session's queue. */
export function markRedelivered(persistence: OutgoingPersistence): void {
  const outgoing = persistence.outgoingStream.bind(persistence);
  persistence.outgoingStream = (client) =>
    Readable.from(
      (async function* () {
        for await (const packet of outgoing(client)) {
          if (packet.cmd === "publish" && packet.messageId) packet.dup = true;
          yield packet;
        }
      })(),
    );
}
