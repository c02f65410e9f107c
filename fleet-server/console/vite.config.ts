import { fileURLToPath } from "node:url";
import { constants, gzipSync } from "node:zlib";
import { type Plugin, defineConfig } from "vite";

/** Packages of which the page takes single constants: a module nobody imports from is left out whole. */
const SIDE_EFFECT_FREE = /[\\/](?:protocol[\\/]dist|zod|fflate|@noble)[\\/]/;

/** Writes `NAME.gz` beside each text file: the server sends it as it is. */
function precompress(): Plugin {
  return {
    name: "precompress",
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        for (const file of Object.values(bundle)) {
          if (!/\.(?:js|css|svg|html)$/.test(file.fileName)) continue;
          const source = gzipSync(file.type === "chunk" ? file.code : file.source, {
            level: constants.Z_BEST_COMPRESSION,
          });
          this.emitFile({ type: "asset", fileName: `${file.fileName}.gz`, source });
        }
      },
    },
  };
}

/** The console as static files with hashed names. No inlined assets: the page runs under a policy without `data:` or inline code. */
export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "/",
  publicDir: false,
  plugins: [precompress()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: fileURLToPath(new URL("../dist/console", import.meta.url)),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2023",
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    reportCompressedSize: true,
    rolldownOptions: { treeshake: { moduleSideEffects: (id) => !SIDE_EFFECT_FREE.test(id) } },
  },
});
