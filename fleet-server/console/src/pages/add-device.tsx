import { useEffect, useState } from "preact/hooks";
import { type ApiError, request, toApiError } from "../api/client.js";
import { formatRelative } from "../lib/format.js";
import { now } from "../lib/clock.js";
import { Command } from "../ui/atoms.js";
import { Dialog } from "../ui/dialog.js";
import { Problem, Skeleton } from "../ui/layout.js";

interface EnrolmentToken {
  token: string;
  expires: number;
  uses: number;
}

/** The command that makes this or another machine a device: the server's address and a token of one use are in it already. */
export function AddDevice({ close }: { close: () => void }) {
  const [made, setMade] = useState<EnrolmentToken | undefined>(undefined);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  useEffect(() => {
    request<EnrolmentToken>("/enrolment-tokens", { method: "POST", body: {} }).then(
      setMade,
      (problem: unknown) => setError(toApiError(problem)),
    );
  }, []);
  const start = `fieldloop agent --server ${location.origin} --enroll ${made?.token ?? ""}`;
  return (
    <Dialog title="Add a device" close={close} wide>
      {error && <Problem error={error} />}
      {!made && !error && <Skeleton rows={2} />}
      {made && (
        <>
          <p>On the device, with the camera as a folder of images, a video, or pushed by HTTP:</p>
          <Command text={`${start} --source folder:./images`} />
          <p>On this machine, with a simulated camera:</p>
          <Command text={`${start} --source "simulator:parts?fps=15&condition=normal&feedback=0.25"`} />
          <p class="muted">
            The token enrols one device and expires {formatRelative(made.expires, now.value)}. The device
            appears here as soon as it connects.
          </p>
        </>
      )}
    </Dialog>
  );
}
