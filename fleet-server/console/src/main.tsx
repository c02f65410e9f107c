import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import { resumeSession } from "./api/session.js";
import { App } from "./app.js";
import { startKeys } from "./lib/keys.js";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/parts.css";
import "./styles/controls.css";
import "./styles/charts.css";
import "./styles/fleet.css";
import "./styles/samples.css";
import "./styles/loop.css";
import "./styles/webhooks.css";
import "./styles/narrow.css";

const root = document.getElementById("app");
if (root) {
  startKeys();
  void resumeSession();
  render(<App />, root);
}
