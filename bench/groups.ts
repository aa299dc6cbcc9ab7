import type { BenchGroup, Size } from './cases.ts';
import { convolutionGroups } from './convolutions.ts';
import { detectionGroups } from './detection.ts';
import { layerGroups } from './layers.ts';
import { operatorGroups } from './operators.ts';
import { stepGroups } from './steps.ts';

/** Everything that can be measured, in the order of the report: ladders, layers of the model, whole steps. */
export function benchGroups(size: Size): BenchGroup[] {
  return [
    ...convolutionGroups(size),
    ...operatorGroups(size),
    ...detectionGroups(size),
    ...layerGroups(size),
    ...stepGroups(size),
  ];
}
