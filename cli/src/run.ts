import { Command, CommanderError, Help, type Option } from "commander";
import { EXIT, reportError } from "./output.js";

/** An empty command line, for `register` to fill. */
export function newProgram(): Command {
  return new Command("fieldloop")
    .description(
      "See how models fail in the field, fix them, ship them back: devices, fleet server and models in one command",
    )
    .version("0.1.0")
    .showHelpAfterError("(add --help for the options)")
    .configureHelp({ optionDescription })
    .exitOverride();
}

/** As commander has it, but without the empty list or table that an option begins with which may be repeated. */
function optionDescription(option: Option): string {
  const value: unknown = option.defaultValue;
  const isEmpty = typeof value === "object" && value !== null && Object.keys(value).length === 0;
  return isEmpty ? option.description : new Help().optionDescription(option);
}

/** Runs one command line; sets `process.exitCode` instead of exiting, so that streams drain and native sessions are released. */
export async function runCommandLine(
  argv: readonly string[],
  register: (program: Command) => Promise<void>,
): Promise<void> {
  endWithTheReader(process.stdout);
  try {
    const program = newProgram();
    await register(program);
    await program.parseAsync([...argv]);
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    else process.exitCode = reportError(error);
  }
}

/** `fieldloop … | head`: whoever reads has read enough, which is no failure of ours. */
function endWithTheReader(stream: NodeJS.WriteStream): void {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(EXIT.ok);
  });
}
