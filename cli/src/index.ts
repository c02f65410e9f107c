export { main } from "./program.js";
export { FleetClient, type ServerAddress } from "./client.js";
export { ChildProgram, type ChildOptions, type ProgramEvent } from "./demo/child.js";
