import { z } from 'zod';
import type { OpenedDevice } from '../gpu/adapter.ts';
import { fingerprint } from '../gpu/fingerprint.ts';
import { assembleWgsl } from '../gpu/program.ts';
import { columnTile } from '../kernels/columnTile.ts';
import {
  familyChoice,
  type KernelChoice,
  type KernelFamily,
  kernelFamilies,
  type ProductProblem,
  setKernelChoice,
} from '../kernels/kernelChoice.ts';
import { rowTile } from '../kernels/rowTile.ts';
import { type TileFlags, type TileShape, tileFlags } from '../kernels/tile.ts';
import {
  winogradInput,
  winogradOutput,
  winogradUpstream,
  winogradWeightGradient,
  winogradWeights,
} from '../kernels/winogradPrograms.ts';
import type { Device } from '../tensor/device.ts';
import { fittedLegally, type TileLimits, tileIsLegal, tileLimits } from './candidates.ts';
import { convolutionClass, convolutionClasses, productClass, productClasses } from './shapeClasses.ts';

const extent = z.int().min(1);
const tileSchema = z.object({
  lanes: extent,
  lanesDown: extent,
  rows: extent,
  vectors: extent,
  spread: z.enum(['subgroup', 'direct', 'workgroup']),
  source: z.enum(['buffer', 'texture']),
  parallelism: extent,
});

/** What choices hold for: this adapter with this driver, computing by these kernels. */
const keySchema = z.object({
  name: z.string(),
  kind: z.string(),
  vendor: z.string(),
  architecture: z.string(),
  device: z.string(),
  driver: z.string(),
  subgroups: z.string(),
  features: z.string(),
  kernels: z.string(),
});
export type AdapterKey = z.infer<typeof keySchema>;

/** The first part in which two keys differ; undefined where they are the same. */
export function differingPart(a: AdapterKey, b: AdapterKey): keyof AdapterKey | undefined {
  return keySchema.keyof().options.find((part) => a[part] !== b[part]);
}

const trialSchema = z.object({
  kernel: z.string(),
  builtIn: z.boolean(),
  chosen: z.boolean(),
  /** Median milliseconds of the class's sample; null where it was not timed. */
  ms: z.number().nullable(),
  /** Why it was not trusted. */
  dropped: z.string().nullable(),
});
export type Trial = z.infer<typeof trialSchema>;

const classSchema = z.object({ name: z.string(), sample: z.string(), trials: z.array(trialSchema) });
/** What was tried for a class; no trials where the time was over. */
export type ClassTrials = z.infer<typeof classSchema>;

/** The measured choices for an adapter. Classes that are missing take the built-in table's. */
export const tunedSchema = z.object({
  key: keySchema,
  /** When, as ISO 8601 tells it. */
  measured: z.string(),
  seconds: z.number().min(0),
  products: z.partialRecord(z.enum(productClasses), z.union([tileSchema, z.literal('naive')])),
  convolutions: z.partialRecord(z.enum(convolutionClasses), z.enum(['direct', 'winograd'])),
  classes: z.array(classSchema),
});
export type TunedKernels = z.infer<typeof tunedSchema>;
export type Choices = Pick<TunedKernels, 'products' | 'convolutions'>;

/** The version of the kernels: a fingerprint of the texts that the generators write. */
export function kernelsVersion(): string {
  const texts: string[] = [];
  for (const spread of ['subgroup', 'direct', 'workgroup'] as const) {
    for (const source of ['buffer', 'texture'] as const) {
      const shape = { lanes: 8, lanesDown: spread === 'subgroup' ? 1 : 8, rows: 8, vectors: 1, parallelism: 1 };
      const flags: TileFlags = tileFlags({ ...shape, spread, source }, { vecA: true, vecB: true });
      texts.push(assembleWgsl(rowTile, flags), assembleWgsl(columnTile, flags));
      for (const program of [rowTile, columnTile]) texts.push(assembleWgsl(program, flags, new Set(['a', 'b'])));
    }
  }
  texts.push(assembleWgsl(winogradWeights, {}));
  for (const program of [winogradInput, winogradUpstream, winogradOutput, winogradWeightGradient]) {
    texts.push(assembleWgsl(program, { source: 'buffer' }));
  }
  return fingerprint(texts.join('\n'));
}

/** What choices for an opened device hold for. */
export function adapterKey({ info, adapter, device, subgroupMinSize, subgroupMaxSize }: OpenedDevice): AdapterKey {
  return {
    name: info.name,
    kind: info.kind,
    vendor: info.vendor,
    architecture: info.architecture,
    device: adapter.info.device,
    driver: info.driver ?? info.description,
    subgroups: `${subgroupMinSize}…${subgroupMaxSize}`,
    features: [...device.features].sort().join(' '),
    kernels: kernelsVersion(),
  };
}

function tileFor(tile: TileShape | 'naive', problem: ProductProblem, has: TileLimits): TileShape | 'naive' {
  return tile === 'naive' ? tile : fittedLegally(tile, problem, has);
}

/** Choices by class, and the table's where there is none. */
export function choiceOf(device: Device, { products, convolutions }: Choices): KernelChoice {
  const table = familyChoice(device, 'auto');
  const has = tileLimits(device);
  return {
    product: (problem) => {
      const tile = products[productClass(problem)];
      return tile === undefined ? table.product(problem) : tileFor(tile, problem, has);
    },
    convolution: (problem) => convolutions[convolutionClass(problem)] ?? table.convolution(problem),
    coarse: false,
  };
}

/** Whether a device can run all that was chosen: a file may be another machine's, or changed by hand. */
export function choicesAreLegal(device: Device, { products }: Choices): boolean {
  const has = tileLimits(device);
  return Object.entries(products).every(
    ([name, tile]) => tile === 'naive' || tileIsLegal(tile, name.startsWith('row') ? 'row' : 'column', has),
  );
}

/** What chose the kernels of a device: the built-in table, a family that was asked for, or measurements. */
export const kernelRecordSchema = z.discriminatedUnion('origin', [
  z.object({ origin: z.literal('table') }),
  z.object({ origin: z.literal('family'), family: z.enum(kernelFamilies) }),
  tunedSchema.omit({ classes: true }).extend({ origin: z.literal('measured') }),
]);
export type KernelRecord = z.infer<typeof kernelRecordSchema>;

const records = new WeakMap<Device, KernelRecord>();

/** What chose the kernels of a device, for whoever notes what something was computed with. */
export function kernelRecord(device: Device): KernelRecord {
  return records.get(device) ?? { origin: 'table' };
}

/** Computes by a family from now on; `auto` is the built-in table. */
export function setKernelFamily(device: Device, family: KernelFamily): void {
  setKernelChoice(device, familyChoice(device, family));
  records.set(device, family === 'auto' ? { origin: 'table' } : { origin: 'family', family });
}

/** Computes by measured choices from now on. */
export function setTunedKernels(device: Device, tuned: Omit<TunedKernels, 'classes'>): void {
  setKernelChoice(device, choiceOf(device, tuned));
  const { key, measured, seconds, products, convolutions } = tuned;
  records.set(device, { origin: 'measured', key, measured, seconds, products, convolutions });
}
