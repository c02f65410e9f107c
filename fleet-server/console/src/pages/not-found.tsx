import { Link } from "wouter-preact";
import { Empty, Page } from "../ui/layout.js";

export function NotFoundPage() {
  return (
    <Page title="No such page">
      <Empty title="Nothing has this address">
        <p>
          Go to the <Link href="/fleet">fleet</Link> or to the <Link href="/failures">failures</Link>.
        </p>
      </Empty>
    </Page>
  );
}
