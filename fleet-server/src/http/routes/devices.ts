import {
  MAIN_LANE,
  deviceDetailSchema,
  deviceIdSchema,
  deviceSummarySchema,
  laneNameSchema,
  predictionViewSchema,
  seriesPointSchema,
  tagsSchema,
  timeSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { Clock } from "../../context.js";
import { SERVER_LIMITS } from "../../limits.js";
import type { DesiredService } from "../../services/desired.js";
import type { DeviceService } from "../../services/devices.js";
import type { TelemetryService } from "../../services/telemetry.js";
import type { DeploymentStore } from "../../store/deployments.js";
import type { EventStore } from "../../store/events.js";
import type { App } from "../env.js";
import { requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer, pageQuerySchema } from "../schemas.js";

export interface DeviceRouteServices {
  readonly devices: DeviceService;
  readonly deployments: DeploymentStore;
  readonly desired: DesiredService;
  readonly telemetry: TelemetryService;
  readonly events: EventStore;
  readonly clock: Clock;
  readonly newId: (prefix: string) => string;
}

const tags = ["devices"];
const params = z.object({ device: deviceIdSchema });
const viewer = requireRole("viewer");
const operator = requireRole("operator");
const HOUR_MS = 3_600_000;

const deploymentViewSchema = z.object({
  ...deviceDetailSchema.shape.deployments.element.shape,
  packageSha256: z.string(),
  measured: z.record(z.string(), z.number()),
  created: timeSchema,
});
const eventViewSchema = z.object({
  boot: z.int(),
  seq: z.int(),
  time: timeSchema,
  received: timeSchema,
  type: z.string(),
  data: z.record(z.string(), z.unknown()),
});
const eventQuerySchema = z.object({
  type: z.enum(["deployment", "warning", "crash", "command_result", "eviction", "shadow"]).optional(),
  from: z.coerce.number().pipe(timeSchema).optional(),
  limit: z.coerce.number().int().min(1).max(SERVER_LIMITS.listItemsMax).default(100),
});
const commandSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("capture"), count: z.int().min(1).max(100) }),
  z.object({ kind: z.literal("restart_host") }),
  z.object({ kind: z.literal("report_state") }),
  z.object({ kind: z.literal("return_previous"), lane: laneNameSchema.default(MAIN_LANE) }),
]);

const routes = {
  list: createRoute({
    method: "get",
    path: "/api/v1/devices",
    tags,
    summary: "Devices in the order of their ids",
    middleware: viewer,
    request: { query: pageQuerySchema },
    responses: { 200: pageAnswer(deviceSummarySchema, "Devices") },
  }),
  detail: createRoute({
    method: "get",
    path: "/api/v1/devices/{device}",
    tags,
    summary: "One device: what it runs, what it was asked to run, how it fares",
    middleware: viewer,
    request: { params },
    responses: { 200: jsonAnswer(deviceDetailSchema, "The device") },
  }),
  tags: createRoute({
    method: "put",
    path: "/api/v1/devices/{device}/tags",
    tags,
    summary: "Replace the tags of a device",
    middleware: operator,
    request: { params, body: jsonBody(tagsSchema) },
    responses: { 200: jsonAnswer(deviceSummarySchema, "The device") },
  }),
  suspension: createRoute({
    method: "put",
    path: "/api/v1/devices/{device}/suspension",
    tags,
    summary: "Suspend a device (it is disconnected and stays out) or let it in again",
    middleware: operator,
    request: { params, body: jsonBody(z.object({ suspended: z.boolean() })) },
    responses: { 200: jsonAnswer(deviceSummarySchema, "The device") },
  }),
  series: createRoute({
    method: "get",
    path: "/api/v1/devices/{device}/series",
    tags,
    summary: "Predictions over time in buckets of whole ten seconds",
    middleware: viewer,
    request: {
      params,
      query: z.object({
        from: z.coerce.number().pipe(timeSchema).optional(),
        to: z.coerce.number().pipe(timeSchema).optional(),
        bucketMs: z.coerce.number().int().min(1).max(86_400_000).default(10_000),
      }),
    },
    responses: {
      200: pageAnswer(seriesPointSchema, "Points, oldest first; buckets without predictions are absent"),
    },
  }),
  predictions: createRoute({
    method: "get",
    path: "/api/v1/devices/{device}/predictions",
    tags,
    summary: "The newest predictions, newest first, with the truth that feedback told",
    middleware: viewer,
    request: {
      params,
      query: z.object({
        limit: z.coerce.number().int().min(1).max(SERVER_LIMITS.recentPredictionsMax).default(100),
      }),
    },
    responses: { 200: pageAnswer(predictionViewSchema, "Predictions") },
  }),
  deployments: createRoute({
    method: "get",
    path: "/api/v1/devices/{device}/deployments",
    tags,
    summary: "What the device was asked to run, newest first, with what it measured on its way",
    middleware: viewer,
    request: { params },
    responses: { 200: pageAnswer(deploymentViewSchema, "Deployments") },
  }),
  events: createRoute({
    method: "get",
    path: "/api/v1/devices/{device}/events",
    tags,
    summary: "What the device reported, newest first",
    middleware: viewer,
    request: { params, query: eventQuerySchema },
    responses: { 200: pageAnswer(eventViewSchema, "Events") },
  }),
  command: createRoute({
    method: "post",
    path: "/api/v1/devices/{device}/commands",
    tags,
    summary: "Ask a connected device for something now; it answers with a `command_result` event",
    middleware: operator,
    request: { params, body: jsonBody(commandSchema) },
    responses: { 202: jsonAnswer(z.object({ command: z.string() }), "Sent") },
  }),
};

export function registerDeviceRoutes(app: App, services: DeviceRouteServices): void {
  const { devices } = services;
  app.openapi(routes.list, async (c) => {
    const { cursor, limit } = c.req.valid("query");
    return c.json(await devices.list(cursor, limit), 200);
  });
  app.openapi(routes.detail, async (c) => c.json(await devices.detail(c.req.valid("param").device), 200));
  app.openapi(routes.tags, async (c) =>
    c.json(await devices.setTags(c.req.valid("param").device, c.req.valid("json")), 200),
  );
  app.openapi(routes.suspension, async (c) => {
    const { suspended } = c.req.valid("json");
    return c.json(await devices.setSuspended(c.req.valid("param").device, suspended), 200);
  });
  app.openapi(routes.command, async (c) => {
    const { device } = await devices.record(c.req.valid("param").device);
    const command = services.newId("cmd");
    await services.desired.command(device, command, c.req.valid("json"));
    return c.json({ command }, 202);
  });
  registerReadings(app, services);
}

function registerReadings(app: App, services: DeviceRouteServices): void {
  const { devices, telemetry, clock } = services;
  app.openapi(routes.series, async (c) => {
    const { device } = await devices.record(c.req.valid("param").device);
    const { from, to = clock.now(), bucketMs } = c.req.valid("query");
    return c.json(
      { items: await telemetry.series(device, from ?? to - HOUR_MS, to, bucketMs), next: null },
      200,
    );
  });
  app.openapi(routes.predictions, async (c) => {
    const { device } = await devices.record(c.req.valid("param").device);
    return c.json(
      { items: await telemetry.recentPredictions(device, c.req.valid("query").limit), next: null },
      200,
    );
  });
  app.openapi(routes.deployments, async (c) => {
    const { device } = await devices.record(c.req.valid("param").device);
    const items = await services.deployments.ofDevice(device, 100);
    return c.json(
      {
        items: items.map(({ device: _device, ...view }) => ({ ...view, measured: { ...view.measured } })),
        next: null,
      },
      200,
    );
  });
  app.openapi(routes.events, async (c) => {
    const { device } = await devices.record(c.req.valid("param").device);
    const { type, from, limit } = c.req.valid("query");
    const events = await services.events.list(device, {
      limit,
      ...(type === undefined ? {} : { type }),
      ...(from === undefined ? {} : { from }),
    });
    const items = events.map(({ boot, seq, time, received, data }) => ({
      boot,
      seq,
      time,
      received,
      type: data.type,
      data: { ...data },
    }));
    return c.json({ items, next: null }, 200);
  });
}
