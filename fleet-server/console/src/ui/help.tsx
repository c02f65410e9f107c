import { keyCaps, layers, singleKeys } from "../lib/keys.js";
import { Dialog } from "./dialog.js";

/** The keys of this page and of every page, with the switch that turns single keys off. */
export function Help({ close, version }: { close: () => void; version: string | undefined }) {
  const groups = [...layers.peek()].reverse().map((layer) => layer.current);
  return (
    <Dialog title="Keys" close={close} wide>
      <div class="help-groups">
        {groups.map(({ group, bindings }) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl class="help-keys">
              {bindings
                .filter((binding) => !binding.hidden)
                .map((binding) => (
                  <div key={binding.keys}>
                    <dt>
                      {keyCaps(binding.keys).map((cap) => (
                        <kbd key={cap}>{cap}</kbd>
                      ))}
                    </dt>
                    <dd>{binding.title}</dd>
                  </div>
                ))}
            </dl>
          </section>
        ))}
      </div>
      <label class="check">
        <input
          type="checkbox"
          checked={singleKeys.value === "on"}
          onChange={(event) => {
            singleKeys.value = event.currentTarget.checked ? "on" : "off";
          }}
        />
        Keys of one character (arrows, Enter, Esc and ? always work)
      </label>
      <p class="muted">
        Times follow this browser's zone; point at one for its date. Intervals are 95 % (Wilson). The console
        only uses the <a href="/api/docs">HTTP API</a>
        {version ? `, server ${version}` : ""}.
      </p>
    </Dialog>
  );
}
