import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Dataset } from '../data/dataset.ts';
import { writeFileAtomic } from '../data/files.ts';
import type { Split } from '../data/split.ts';
import { environment } from '../gpu/environment.ts';
import { median } from '../report/format.ts';
import type { RunEnvironment } from '../report/runReport.ts';
import type { Device } from '../tensor/device.ts';
import { type KernelRecord, kernelRecord } from '../tuner/tunedChoice.ts';
import { RUN_FILES, type Run } from './run.ts';
import { readEnvironment } from './runFolder.ts';

/** Images and cells of a data set, by the side of the split and by class. */
export function summarizeData(dataset: Dataset, split: Split): RunEnvironment['data'] {
  const count = (records: Split['train'], label: number): number =>
    records.reduce((sum, { annotations }) => sum + annotations.filter((cell) => cell.label === label).length, 0);
  const sizes = new Map<string, RunEnvironment['data']['sizes'][number]>();
  for (const { width, height } of dataset.images) {
    const size = sizes.get(`${width} ${height}`) ?? { width, height, images: 0 };
    size.images++;
    sizes.set(`${width} ${height}`, size);
  }
  const perImage = dataset.images.map(({ annotations }) => annotations.length);
  return {
    images: { train: split.train.length, validation: split.validation.length },
    cells: dataset.classes.map((name, i) => ({
      class: name,
      train: count(split.train, i + 1),
      validation: count(split.validation, i + 1),
    })),
    sizes: [...sizes.values()].sort((a, b) => b.images - a.images),
    cellsPerImage: {
      min: perImage.reduce((a, b) => Math.min(a, b)),
      median: median(perImage),
      max: perImage.reduce((a, b) => Math.max(a, b)),
    },
  };
}

/** What the last session of a run's folder was computed on and by, where it noted that. */
export function recordedKernels(out: string): { adapter: string; kernels: KernelRecord } | undefined {
  const path = join(out, RUN_FILES.environment);
  const last = existsSync(path) ? readEnvironment(path).sessions.at(-1) : undefined;
  return last?.kernels && { adapter: last.adapter.name, kernels: last.kernels };
}

/**
 * Notes in the run's folder what the session runs on, beside what earlier sessions ran on.
 *
 * @returns to be called when the session ends in good order
 */
export function recordSession({ dataset, split, model, out }: Run, device: Device): () => void {
  const path = join(out, RUN_FILES.environment);
  const earlier = existsSync(path) ? readEnvironment(path).sessions : [];
  const session = {
    started: new Date().toISOString(),
    ended: null,
    ...environment(device.gpu.opened),
    kernels: kernelRecord(device),
  };
  const write = (ended: string | null): void => {
    const value: RunEnvironment = {
      sessions: [...earlier, { ...session, ended }],
      data: summarizeData(dataset, split),
      model: { parameters: model.state.parameterCount() },
    };
    writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
  };
  write(null);
  return () => write(new Date().toISOString());
}
