import { manifestFiles, toFieldloopError } from "@fieldloop/protocol";
import { checkGolden, openModel, openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { EXIT, action, printJson, printTable } from "../output.js";
import { formatBytes, parsePositiveInteger, versionOf } from "./model-options.js";

interface VerifyFlags {
  readonly threads: number;
  readonly json?: boolean;
}

interface VariantVerdict {
  readonly variant: string;
  readonly ok: boolean;
  readonly goldenCases?: number;
  readonly worstAbsoluteError?: number;
  readonly error?: { readonly code: string; readonly message: string };
}

export function registerModelVerify(model: Command): void {
  model
    .command("verify")
    .description(
      "Check a package: names, sizes, hashes, links, every graph, every golden case on every variant",
    )
    .argument("<dir>", "package folder")
    .option("--threads <n>", "threads inside one operator", parsePositiveInteger, 1)
    .option("--json", "result as JSON")
    .action(action(verify));
}

async function verify(dir: string, flags: VerifyFlags): Promise<void> {
  const pkg = await openPackage(dir);
  const files = manifestFiles(pkg.manifest);
  const bytes = files.reduce((sum, file) => sum + file.bytes, pkg.manifestBytes.length);
  const verdicts: VariantVerdict[] = [];
  for (const variant of pkg.manifest.variants)
    verdicts.push(await verifyVariant(pkg, variant.name, flags.threads));
  const ok = verdicts.every((verdict) => verdict.ok);
  const version = versionOf(pkg.manifest);
  if (flags.json) {
    printJson({
      ok,
      version,
      packageSha256: pkg.packageSha256,
      files: files.length + 1,
      bytes,
      variants: verdicts,
    });
  } else {
    printTable([
      ["variant", "verdict", "golden cases", "worst error", "reason"],
      ...verdicts.map((verdict) => [
        verdict.variant,
        verdict.ok ? "ok" : "failed",
        String(verdict.goldenCases ?? "-"),
        verdict.worstAbsoluteError?.toExponential(2) ?? "-",
        verdict.error === undefined ? "-" : `${verdict.error.code}: ${verdict.error.message}`,
      ]),
    ]);
    process.stdout.write(
      `${version}: ${files.length + 1} files of ${formatBytes(bytes)} as the manifest says, package ${pkg.packageSha256}\n`,
    );
  }
  if (!ok) process.exitCode = EXIT.failed;
}

async function verifyVariant(
  pkg: ModelPackage,
  variant: string,
  threadCount: number,
): Promise<VariantVerdict> {
  try {
    const model = await openModel(pkg, { variant, threadCount });
    try {
      const { cases, worstAbsoluteError } = await checkGolden(model);
      return { variant, ok: true, goldenCases: cases, worstAbsoluteError };
    } finally {
      await model.release();
    }
  } catch (error) {
    const { code, message } = toFieldloopError(error);
    return { variant, ok: false, error: { code, message } };
  }
}
