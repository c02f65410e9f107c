import {
  deviceIdSchema,
  devicePolicyChangeSchema,
  devicePolicySchema,
  groupSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { DesiredService } from "../../services/desired.js";
import type { DeviceService } from "../../services/devices.js";
import type { App } from "../env.js";
import { requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer } from "../schemas.js";

const groupParams = z.object({ group: groupSchema.shape.group });
const deviceParams = z.object({ device: deviceIdSchema });
const viewer = requireRole("viewer");
const operator = requireRole("operator");
const policyBody = jsonBody(devicePolicyChangeSchema);
const policyAnswer = { 200: jsonAnswer(devicePolicyChangeSchema, "What this scope sets now") };

const routes = {
  list: createRoute({
    method: "get",
    path: "/api/v1/groups",
    tags: ["devices"],
    summary: "Groups of devices; `all` always exists and is not listed",
    middleware: viewer,
    responses: { 200: pageAnswer(groupSchema, "Groups") },
  }),
  put: createRoute({
    method: "put",
    path: "/api/v1/groups/{group}",
    tags: ["devices"],
    summary: "Make or replace a group: a list of devices, or a selector over tags",
    middleware: operator,
    request: { params: groupParams, body: jsonBody(groupSchema.omit({ group: true })) },
    responses: { 200: jsonAnswer(groupSchema, "The group") },
  }),
  remove: createRoute({
    method: "delete",
    path: "/api/v1/groups/{group}",
    tags: ["devices"],
    summary: "Forget a group; its devices stay",
    middleware: operator,
    request: { params: groupParams },
    responses: { 204: { description: "Gone" } },
  }),
  members: createRoute({
    method: "get",
    path: "/api/v1/groups/{group}/devices",
    tags: ["devices"],
    summary: "The devices of a group now",
    middleware: viewer,
    request: { params: groupParams },
    responses: { 200: pageAnswer(deviceIdSchema, "Device ids") },
  }),
  effective: createRoute({
    method: "get",
    path: "/api/v1/policies/effective/{device}",
    tags: ["policies"],
    summary: "What a device is told: its own settings over its groups' over the fleet's",
    middleware: viewer,
    request: { params: deviceParams },
    responses: { 200: jsonAnswer(devicePolicySchema, "The policy") },
  }),
  patchDefault: createRoute({
    method: "patch",
    path: "/api/v1/policies/default",
    tags: ["policies"],
    summary: "Change what every device may send and how often",
    middleware: operator,
    request: { body: policyBody },
    responses: policyAnswer,
  }),
  patchGroup: createRoute({
    method: "patch",
    path: "/api/v1/policies/groups/{group}",
    tags: ["policies"],
    summary: "Change the policy of a group",
    middleware: operator,
    request: { params: groupParams, body: policyBody },
    responses: policyAnswer,
  }),
  patchDevice: createRoute({
    method: "patch",
    path: "/api/v1/policies/devices/{device}",
    tags: ["policies"],
    summary: "Change the policy of one device",
    middleware: operator,
    request: { params: deviceParams, body: policyBody },
    responses: policyAnswer,
  }),
};

export function registerGroupRoutes(app: App, devices: DeviceService, desired: DesiredService): void {
  app.openapi(routes.list, async (c) => c.json({ items: await devices.groups(), next: null }, 200));
  app.openapi(routes.put, async (c) => {
    const group = { ...c.req.valid("json"), group: c.req.valid("param").group };
    await devices.putGroup(group);
    return c.json(group, 200);
  });
  app.openapi(routes.remove, async (c) => {
    await devices.deleteGroup(c.req.valid("param").group);
    return c.body(null, 204);
  });
  app.openapi(routes.members, async (c) => {
    const items = await devices.resolve({ group: c.req.valid("param").group });
    return c.json({ items, next: null }, 200);
  });
  app.openapi(routes.effective, async (c) => c.json(await desired.policy(c.req.valid("param").device), 200));
  app.openapi(routes.patchDefault, async (c) =>
    c.json(await desired.changePolicy("default", c.req.valid("json")), 200),
  );
  app.openapi(routes.patchGroup, async (c) => {
    const { group } = c.req.valid("param");
    await devices.resolve({ group });
    return c.json(await desired.changePolicy(`group:${group}`, c.req.valid("json")), 200);
  });
  app.openapi(routes.patchDevice, async (c) => {
    const { device } = await devices.record(c.req.valid("param").device);
    return c.json(await desired.changePolicy(`device:${device}`, c.req.valid("json")), 200);
  });
}
