import type { CaseRecord } from './measure.ts';
import { layersShareOfPeak } from './report.ts';

/** One thing that the program is meant to reach, and what a run found. */
export interface Acceptance {
  what: string;
  /** In words: `at least 5 times as fast`. */
  wanted: string;
  /** In words, with what it was measured against; empty where it was not measured. */
  measured: string;
  /** Null where it was not measured. */
  met: boolean | null;
}

const LEAST_SHARE = 50;
/** Times its forward pass. */
const MOST_GRADIENT = 3;

const times = (value: number): string => `${value.toFixed(value < 10 ? 2 : 1)}×`;

function ofGoal({ goal, ratio, ratios = {}, peers = {}, outcomes = [] }: CaseRecord): Acceptance[] {
  if (!goal) return [];
  const { what, against, atLeast } = goal;
  const wanted = atLeast === 1 ? 'faster' : `at least ${atLeast} times as fast`;
  const value = against === 'webgpu' ? ratio : ratios[against];
  if (value === undefined || value === null) {
    const failed = outcomes.find(({ engine, failure }) => failure !== undefined && against === engine);
    return [{ what, wanted, measured: failed ? `${failed.engine}: ${failed.failure}` : '', met: null }];
  }
  const rival = Object.keys(ratios).find((engine) => ratios[engine] === value) ?? against;
  return [
    { what, wanted, measured: `${times(value)} (${rival}, ${peers[rival]?.toFixed(1)} ms)`, met: value >= atLeast },
  ];
}

function ofLayers(records: readonly CaseRecord[]): Acceptance[] {
  const share = layersShareOfPeak(records);
  if (share === null) return [];
  return [
    {
      what: "Convolution layers of the model, both directions, averaged by operations: share of the adapter's multiply-add peak",
      wanted: `at least ${LEAST_SHARE} %`,
      measured: `${share.toFixed(1)} %`,
      met: share >= LEAST_SHARE,
    },
  ];
}

function ofRoiAlign(records: readonly CaseRecord[]): Acceptance[] {
  const last = (start: string) => records.findLast(({ table, name }) => table === 'ROIAlign' && name.startsWith(start));
  const [forward, gradient] = [last('roiAlign 256'), last('roiAlign gradient 256')];
  if (!forward?.ms || !gradient?.ms) return [];
  const factor = gradient.ms / forward.ms;
  return [
    {
      what: 'Gradient of ROIAlign by its forward pass',
      wanted: `at most ${MOST_GRADIENT} times its time`,
      measured: times(factor),
      met: factor <= MOST_GRADIENT,
    },
  ];
}

/** What the records say of the goals; goals whose cases were filtered out are left out. */
export function acceptance(records: readonly CaseRecord[]): Acceptance[] {
  return [...records.flatMap(ofGoal), ...ofLayers(records), ...ofRoiAlign(records)];
}

export function verdictOf({ met }: Acceptance): string {
  if (met === null) return 'not measured';
  return met ? 'met' : 'not met';
}
