import type { MaskRCNN } from '../model/maskRcnn.ts';
import type { Device } from '../tensor/device.ts';
import {
  adapterMemory,
  describePlan,
  gibibytes,
  type MemoryPlan,
  planPrediction,
  planTraining,
  predictionWork,
  validationOf,
  workOf,
} from '../train/memoryPlan.ts';
import type { Run } from '../train/run.ts';
import { say } from './session.ts';

/** Tells what a run, or steps or predictions of its batches, will need, before anything is allocated. */
export async function sayPlan(
  device: Device,
  run: Run,
  what: 'run' | 'train' | 'predict' = 'run',
): Promise<MemoryPlan> {
  const work = workOf(run);
  const plan =
    what === 'predict'
      ? await planPrediction(device, run.model, work)
      : await planTraining(device, run.model, work, what === 'run' ? validationOf(run) : undefined);
  if (sayLine(what === 'predict' ? 'Prediction' : 'Training', plan, device) && what !== 'predict') {
    const less = run.options.checkpointActivations ? '' : '--checkpoint-activations, ';
    say(`Less is needed with ${less}a smaller --batch-size, or a smaller --resize or minSize.`);
  }
  return plan;
}

/** Tells what predicting the files of a folder will need, before the model is on the device. */
export async function sayPredictionPlan(
  device: Device,
  model: MaskRCNN,
  files: readonly { width: number; height: number }[],
  settings: { resize: number; batchSize: number },
): Promise<void> {
  const work = predictionWork(files, settings, model.config);
  if (sayLine('Prediction', await planPrediction(device, model, work), device)) {
    say('Less is needed with a smaller --batch-size or --resize.');
  }
}

/** Says a plan; true where the adapter has too little for it. */
function sayLine(what: string, plan: MemoryPlan, device: Device): boolean {
  const { line, exceeds } = describePlan(what, plan, adapterMemory(device));
  say(line);
  return exceeds;
}

/** Tells the most that was held, beside the plan. */
export function sayHeld(device: Device, plan: MemoryPlan): void {
  const { peakHeld, staging } = device.gpu.counters();
  say(`Device memory: ${gibibytes(peakHeld + staging)} at most, ${gibibytes(plan.bytes)} planned.`);
}
