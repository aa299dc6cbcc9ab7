import type { Device } from '../tensor/device.ts';
import {
  adapterMemory,
  describePlan,
  gibibytes,
  type MemoryPlan,
  planPrediction,
  planTraining,
  workOf,
} from '../train/memoryPlan.ts';
import type { Run } from '../train/run.ts';
import { say } from './session.ts';

/** Tells what a step (or a prediction of a batch) of a planned run will need, before anything is allocated. */
export async function sayPlan(device: Device, run: Run, mode: 'train' | 'predict' = 'train'): Promise<MemoryPlan> {
  const work = workOf(run);
  const plan =
    mode === 'train' ? await planTraining(device, run.model, work) : await planPrediction(device, run.model, work);
  const { line, exceeds } = describePlan(mode === 'train' ? 'Training' : 'Prediction', plan, adapterMemory(device));
  say(line);
  if (exceeds && mode === 'train') {
    const less = run.options.checkpointActivations ? '' : '--checkpoint-activations, ';
    say(`Less is needed with ${less}a smaller --batch-size, or a smaller --resize or minSize.`);
  }
  return plan;
}

/** Tells the most that was held, beside the plan. */
export function sayHeld(device: Device, plan: MemoryPlan): void {
  const { peakHeld, staging } = device.gpu.counters();
  say(`Device memory: ${gibibytes(peakHeld + staging)} at most, ${gibibytes(plan.bytes)} planned.`);
}
