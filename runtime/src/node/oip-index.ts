/** `@fieldloop/runtime/oip`: the Open Inference Protocol v2 on Node, both sides. Loads ONNX Runtime nowhere. */
export { OIP_LIMITS } from "../oip/limits.js";
export { handleInference } from "../oip/rest-server.js";
export { datatypeOf } from "../oip/tensors.js";
export { oipBackend, oipClient } from "./oip-backend.js";
export { serveGrpc, type GrpcServerOptions } from "./oip-grpc.js";
export { serveHttp, type OipAddress, type OipServer } from "./oip-http-server.js";
export { SessionService, type ServedModel, type SessionServiceOptions } from "./oip-service.js";
