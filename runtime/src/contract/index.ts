/** `@fieldloop/runtime/contract`: what every backend must do, for whoever writes or tests one. */
export {
  CONTRACT_CASES,
  runContract,
  type ContractCase,
  type ContractResult,
  type ContractSubject,
} from "./backend.suite.js";
export { contractModels, type ContractModel } from "./models.js";
