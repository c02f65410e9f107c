import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { FieldloopError, problemSchema } from "@fieldloop/protocol";
import { z } from "@hono/zod-openapi";
import type { App } from "./env.js";
import { PROBLEM_TYPE } from "./problem.js";

const INITIALIZER = `window.ui = SwaggerUIBundle({ url: "/api/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });\n`;
const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fieldloop API</title>
<link rel="stylesheet" href="/api/docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/api/docs/swagger-ui-bundle.js"></script>
<script src="/api/docs/init.js"></script>
</body>
</html>
`;
/** Files of the reference page's library; everything comes from this server. */
const FILES: Readonly<Record<string, string>> = {
  "swagger-ui.css": "text/css; charset=utf-8",
  "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
};

/** The OpenAPI 3.1 document made from the routes' own schemas, and a page that shows it. */
export function registerOpenApi(app: App, version: string): void {
  let document: string | undefined;
  app.get("/api/openapi.json", (c) => {
    // Made at the first request: by then every route is registered.
    document ??= JSON.stringify(describe(app, version));
    return c.body(document, 200, { "Content-Type": "application/json" });
  });
  const folder = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
  app.get("/api/docs", (c) => c.html(PAGE));
  app.get("/api/docs/init.js", (c) =>
    c.body(INITIALIZER, 200, { "Content-Type": "text/javascript; charset=utf-8" }),
  );
  app.get("/api/docs/:file", async (c) => {
    const name = c.req.param("file");
    const type = Object.hasOwn(FILES, name) ? FILES[name] : undefined;
    if (type === undefined)
      throw new FieldloopError("not_found", `Read page: there is no "${name.slice(0, 80)}"`);
    return c.body(new Uint8Array(await readFile(join(folder, name))), 200, { "Content-Type": type });
  });
}

function describe(app: App, version: string): object {
  app.openAPIRegistry.registerComponent("securitySchemes", "token", { type: "http", scheme: "bearer" });
  const document = app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "Fieldloop fleet server",
      version,
      description:
        "Devices, models, rollouts, failure cases, datasets, training and evaluation of one fleet.",
      license: { name: "Apache-2.0" },
    },
    security: [{ token: [] }],
  });
  const schema = z.toJSONSchema(problemSchema, { io: "output" });
  const problem = { description: "Problem details (RFC 9457)", content: { [PROBLEM_TYPE]: { schema } } };
  for (const path of Object.values(document.paths ?? {})) {
    for (const method of ["get", "put", "post", "patch", "delete"] as const) {
      const operation = path[method] as { responses?: Record<string, unknown> } | undefined;
      if (operation?.responses) operation.responses.default = problem;
    }
  }
  return document;
}
