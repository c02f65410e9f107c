import type { Overview, SampleView } from "@fieldloop/protocol";
import { CHANGED_CAMERAS, type DemoFleet } from "./fleet.js";
import type { Span } from "./measure.js";
import type { Narrator } from "./narrator.js";
import type { StoryOptions } from "./options.js";
import { until } from "./until.js";

const LABELS_BY_HAND_MIN = 40;
/** Labels written at a time. */
const LABELLERS = 6;

export async function failureCases(fleet: DemoFleet, span: Span): Promise<SampleView[]> {
  const samples: SampleView[] = [];
  for await (const sample of fleet.client.list<SampleView>(
    `/api/v1/samples?model=parts&after=${span.from}&before=${span.to}&order=worth&limit=200`,
  )) {
    if (CHANGED_CAMERAS.includes(sample.device)) samples.push(sample);
  }
  return samples;
}

export async function label(
  fleet: DemoFleet,
  narrator: Narrator,
  samples: SampleView[],
  options: StoryOptions,
): Promise<number> {
  narrator.say(`${samples.length} failure cases from the two cameras, worth most first`);
  if (!options.unattended) return labelByHand(fleet, narrator);
  let labelled = 0;
  const queue = samples.values();
  const labelOnes = async (): Promise<void> => {
    for (const sample of queue) {
      const id = sample.predictionId.split("/").at(-1);
      const truth = await fleet.local<{ label: string }>(sample.device, `/simulator/truth?prediction=${id}`);
      if (truth === undefined) continue;
      await fleet.client.post(`/api/v1/samples/${sample.sample}/annotations`, { label: truth.label });
      labelled += 1;
      narrator.progress(`labelling by the simulator's truth, ${labelled} of ${samples.length}`);
    }
  };
  await Promise.all(Array.from({ length: LABELLERS }, labelOnes));
  narrator.say(
    `${labelled} of them labelled by the simulator's truth (a person would use the console's failure inbox)`,
  );
  return labelled;
}

async function labelByHand(fleet: DemoFleet, narrator: Narrator): Promise<number> {
  narrator.say(`label them in the failure inbox, one key each: ${fleet.client.url}/failures`);
  narrator.say(
    `the story goes on by itself after ${LABELS_BY_HAND_MIN} labels, best more (or run with --once to have the simulator's truth do it)`,
  );
  let still = 0;
  let last = 0;
  return until(
    "enough samples are labelled",
    3_600_000,
    async () => {
      fleet.assertRunning();
      const { samplesTotal, samplesUnlabelled } = await fleet.client.get<Overview>("/api/v1/overview");
      const total = samplesTotal - samplesUnlabelled;
      still = total === last ? still + 1 : 0;
      last = total;
      narrator.progress(`${total} labelled`);
      // Fifteen quiet seconds after enough labels: the person has stopped.
      return total >= LABELS_BY_HAND_MIN && still >= 15 ? total : undefined;
    },
    1000,
  );
}

interface FailureStatistics {
  readonly strata: readonly {
    readonly stratum: string;
    readonly samples: number;
    readonly wrong: number;
    readonly right: number;
  }[];
}

/** What the labels say about both ways of choosing, on the cameras whose light changed. */
export async function foundErrors(
  fleet: DemoFleet,
  span: Span,
): Promise<{ precision: number; randomShare: number; worthKnown: number; randomKnown: number }> {
  const counts = { worth: { wrong: 0, known: 0 }, random: { wrong: 0, known: 0 } };
  for (const device of CHANGED_CAMERAS) {
    const { strata } = await fleet.client.get<FailureStatistics>(
      `/api/v1/failures/statistics?model=parts&version=1&device=${device}&after=${span.from}&before=${span.to}`,
    );
    for (const { stratum, wrong, right } of strata) {
      if (stratum !== "worth" && stratum !== "random") continue;
      counts[stratum].wrong += wrong;
      counts[stratum].known += wrong + right;
    }
  }
  const { worth, random } = counts;
  return {
    precision: worth.wrong / worth.known,
    randomShare: random.wrong / random.known,
    worthKnown: worth.known,
    randomKnown: random.known,
  };
}
