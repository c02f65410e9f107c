import { createServer, type AddressInfo } from "node:net";
import { Aedes } from "aedes";

/** A process of its own: aedes as it comes, which acknowledges and stores nothing. Prints its port; ends with its parent. */
const broker = await Aedes.createBroker();
const server = createServer({ noDelay: true }, (socket) => broker.handle(socket));
server.listen(0, "127.0.0.1", () => process.send!({ port: (server.address() as AddressInfo).port }));
process.on("disconnect", () => process.exit(0));
