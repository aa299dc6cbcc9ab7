import { besideGroups } from './beside.ts';
import type { BenchGroup, Size } from './cases.ts';
import { convolutionGroups } from './convolutions.ts';
import { detectionGroups } from './detection.ts';
import { headGroups } from './heads.ts';
import { layerGroups } from './layers.ts';
import { multiScaleGroups } from './multiScale.ts';
import { operatorGroups } from './operators.ts';
import { stepGroups } from './steps.ts';

/** `TORCH_PYTHON`, else `python3`. */
export function defaultPython(): string {
  return process.env.TORCH_PYTHON || 'python3';
}

/**
 * Everything that can be measured, in the order of the report: ladders, layers of the model, what other engines are
 * measured on, whole steps.
 *
 * @param python exports torchvision's model for other engines
 */
export function benchGroups(size: Size, python = defaultPython()): BenchGroup[] {
  return [
    ...convolutionGroups(size),
    ...operatorGroups(size),
    ...headGroups(size),
    ...detectionGroups(size),
    ...multiScaleGroups(),
    ...layerGroups(),
    ...besideGroups(),
    ...stepGroups(python),
  ];
}
