import { defaultThresholds, type Thresholds } from './thresholds.ts';

/** The notebook's hand-tuned thresholds of the competition's classes, for scores and masks alike. */
const COMPETITION: Readonly<Record<string, number>> = { astro: 0.6, cort: 0.8, shsy5y: 0.7 };

/** Thresholds before any tuning: the notebook's for the competition's three classes, .5 for all others. */
export function initialThresholds(classes: readonly string[]): Thresholds {
  const thresholds = defaultThresholds(classes.length + 1);
  classes.forEach((name, i) => {
    const value = COMPETITION[name] ?? 0.5;
    thresholds.minScore[i + 1] = value;
    thresholds.maskThreshold[i + 1] = value;
  });
  return thresholds;
}
