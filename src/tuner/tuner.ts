import type { ProgramUse } from '../gpu/programCache.ts';
import { columnTile } from '../kernels/columnTile.ts';
import { familyChoice, type KernelChoice, type ProductProblem } from '../kernels/kernelChoice.ts';
import { rowTile } from '../kernels/rowTile.ts';
import { type TileShape, tileColumns, tileFlags } from '../kernels/tile.ts';
import type { Device } from '../tensor/device.ts';
import { distinct, fittedLegally, tileCandidates, tileLimits, tileName } from './candidates.ts';
import { Budget, type Candidate, Contest, HOPELESS, Laboratory, OutOfTime } from './contest.ts';
import {
  type ConvolutionClass,
  convolutionClasses,
  convolutionSample,
  type ProductClass,
  productClasses,
  productSample,
  type Sample,
  sampleName,
} from './shapeClasses.ts';
import { adapterKey, type Choices, type ClassTrials, choiceOf, type TunedKernels } from './tunedChoice.ts';

/*
 * The choice of kernels by measurement. For each class of work (`shapeClasses.ts`) every candidate first computes a small ragged sample, which
 * the CPU checks; those that are right compute the class's own sample in turn, and the fastest by its median is taken, after it has passed all forms
 * in which it will be used. It all happens on a device of its own: what a candidate breaks is thrown away with it.
 */

export interface TuneOptions {
  /** Milliseconds for all of it, the device's opening and compilation included. */
  budget?: number;
  /** Milliseconds of a clock. */
  now?: () => number;
  /** The tiles to try for a problem beside the built-in one. */
  candidates?: (device: Device, problem: ProductProblem) => TileShape[];
  /** Called with the classes that are done, and the name of the next. */
  progress?: (done: number, name: string) => void;
  /** Measures on samples of this, in place of the classes' own; null leaves a class out. */
  samples?: (own: Sample, name: ProductClass | ConvolutionClass) => Sample | null;
}

/** 20 seconds are promised; the last step may pass the end. */
const BUDGET_MS = 18_000;
/** Of the largest sum. float32 leaves some 1e-6, Winograd's transforms some 1e-5; one wrong element more than 1e-3. */
const TOLERANCE = { product: 5e-5, winograd: 5e-4 };

/** A small convolution of 3 × 3 with padding, whose sizes are no multiples of any tile's. */
const ragged = (direction: Sample['direction'], channels: number, outChannels: number): Sample => ({
  direction,
  images: 2,
  height: 13,
  width: 11,
  channels,
  outChannels,
  kernel: 3,
});

function tileCandidate(tile: TileShape, direction: Sample['direction'], builtIn: boolean): Candidate<TileShape> {
  const columns = tileColumns(tile);
  const full = columns + 4;
  const product: KernelChoice = { product: () => tile, convolution: () => 'direct', coarse: false };
  const forms: [channels: number, outChannels: number][] = [
    [6, full],
    [8, full - 1],
    [6, full - 1],
  ];
  return {
    value: tile,
    name: tileName(tile),
    builtIn,
    choice: () => product,
    first: [ragged(direction, 8, full)],
    all: forms.map(([channels, outChannels]) => ragged(direction, channels, outChannels)),
    tolerance: TOLERANCE.product,
    programs: [
      {
        program: (direction === 'forward' ? rowTile : columnTile) as unknown as ProgramUse['program'],
        flags: tileFlags(tile, { vecA: true, vecB: true }),
      },
    ],
  };
}

/** The chosen tile also without the vectors that few columns leave out: used so, see `fittedLegally`, it is another program. */
function withFitted(candidate: Candidate<TileShape>, direction: Sample['direction']): Candidate<TileShape> {
  if (candidate.value.vectors === 1) return candidate;
  const tile = candidate.value;
  const few = ragged(direction, 8, tile.lanes * 4);
  return {
    ...candidate,
    all: [...candidate.all, few],
    choice: (device) => ({
      ...candidate.choice(device),
      product: (problem) =>
        problem.columns === few.outChannels ? fittedLegally(tile, problem, tileLimits(device)) : tile,
    }),
  };
}

/** Chooses a tile for a class of products. */
async function chooseTile(contest: Contest<TileShape>, device: Device, problem: ProductProblem, tiles: TileShape[]) {
  const direction: Sample['direction'] = problem.direction === 'row' ? 'forward' : 'weightGradient';
  const table = familyChoice(device, 'auto').product(problem);
  const builtIn = table === 'naive' ? [] : [table];
  const make = (tile: TileShape): Candidate<TileShape> =>
    withFitted(tileCandidate(tile, direction, builtIn.includes(tile)), direction);
  const all = distinct([...builtIn, ...tiles]).map(make);
  await contest.enter(all);
  // The other kind of memory for the two best: whether loads of textures are cheap is the adapter's nature, not the tile's.
  const best = contest.ranked().slice(0, 2);
  const others = best.map(
    ({ value }): TileShape => ({
      ...value,
      source: value.source === 'buffer' ? 'texture' : 'buffer',
    }),
  );
  const fresh = distinct([...all.map(({ value }) => value), ...others]).slice(all.length);
  const again = contest.ranked().filter((candidate) => candidate === best[0] || candidate.builtIn);
  if (fresh.length > 0) await contest.enter(fresh.map(make), again);
  return contest.winner();
}

/**
 * The ways to spread A that were hopeless in every class where they were timed: on a software adapter those through workgroup memory, on some GPUs
 * those by subgroups. They are not compiled for further classes.
 */
class Spreads {
  readonly #timed = new Set<TileShape['spread']>();
  readonly #hopeful = new Set<TileShape['spread']>();

  note(contest: Contest<TileShape>): void {
    const [best, ...others] = contest.ranked();
    if (!best) return;
    for (const candidate of [best, ...others]) {
      this.#timed.add(candidate.value.spread);
      if (contest.ms(candidate) <= HOPELESS * contest.ms(best)) this.#hopeful.add(candidate.value.spread);
    }
  }

  isHopeless({ spread }: TileShape): boolean {
    return this.#timed.has(spread) && !this.#hopeful.has(spread);
  }
}

/** Chooses between direct products and Winograd's algorithm for a class of convolutions. */
async function chooseConvolution(
  contest: Contest<'direct' | 'winograd'>,
  device: Device,
  sample: Sample,
  sofar: Choices,
) {
  const table = familyChoice(device, 'auto').convolution(sample);
  const directions: Sample['direction'][] =
    sample.direction === 'weightGradient' ? ['weightGradient'] : ['forward', 'inputGradient'];
  const make = (value: 'direct' | 'winograd'): Candidate<'direct' | 'winograd'> => ({
    value,
    name: value,
    builtIn: value === table,
    choice: (on) => ({ ...choiceOf(on, sofar), convolution: () => value }),
    first: directions.map((direction) => ragged(direction, 8, 12)),
    all: directions.map((direction) => ragged(direction, 64, 36)),
    tolerance: value === 'winograd' ? TOLERANCE.winograd : TOLERANCE.product,
    programs: [],
  });
  await contest.enter([make('direct'), make('winograd')]);
  return contest.winner();
}

/** A sample as the choice of tiles sees it. */
export function problemOf({ direction, height, width, channels, outChannels }: Sample): ProductProblem {
  const positions = height * width;
  return direction === 'weightGradient'
    ? { direction: 'column', rows: channels, columns: outChannels, depth: positions }
    : { direction: 'row', rows: positions, columns: outChannels, depth: channels };
}

/**
 * Measures which kernels an adapter computes fastest. The built-in table's are among the candidates; classes that the budget does not reach
 * keep them. A candidate that does not compile, breaks the device or computes wrongly is dropped, with its reason among the trials. Where all of a
 * class are wrong the plain kernels are taken.
 *
 * @param open a new device on the adapter; those opened here are closed here
 */
export async function tuneKernels(open: () => Promise<Device>, options: TuneOptions = {}): Promise<TunedKernels> {
  const { budget: milliseconds = BUDGET_MS, now = () => performance.now(), samples = (own) => own } = options;
  const candidatesFor = options.candidates ?? tileCandidates;
  const started = now();
  const budget = new Budget(milliseconds, now);
  const lab = new Laboratory(open);
  const choices: Choices = { products: {}, convolutions: {} };
  const classes: ClassTrials[] = [];
  const spreads = new Spreads();
  try {
    const first = await lab.device();
    const key = adapterKey(first.gpu.opened);
    const realGpu = first.gpu.opened.info.kind === 'gpu';
    /** Runs a contest within the class's share of the time, and keeps its trials however it ends. */
    const contestFor = async <C>(
      name: ProductClass | ConvolutionClass,
      own: Sample,
      choose: (contest: Contest<C>, device: Device, sample: Sample) => Promise<Candidate<C> | null | undefined>,
    ): Promise<Candidate<C> | null | undefined> => {
      options.progress?.(classes.length, name);
      const sample = samples(own, name);
      if (sample === null) return undefined;
      const contest = new Contest<C>(lab, budget, now, sample);
      budget.startClass();
      try {
        return await choose(contest, await lab.device(), sample);
      } catch (error) {
        if (!(error instanceof OutOfTime)) throw error;
        return undefined;
      } finally {
        classes.push({ name, sample: sampleName(sample), trials: contest.trials });
      }
    };
    for (const name of productClasses) {
      const winner = await contestFor<TileShape>(name, productSample(name, realGpu), (contest, device, sample) => {
        const problem = problemOf(sample);
        const tiles = candidatesFor(device, problem).filter((tile) => !spreads.isHopeless(tile));
        return chooseTile(contest, device, problem, tiles).finally(() => spreads.note(contest));
      });
      if (winner !== undefined) choices.products[name] = winner === null ? 'naive' : winner.value;
    }
    for (const name of convolutionClasses) {
      const winner = await contestFor<'direct' | 'winograd'>(
        name,
        convolutionSample(name, realGpu),
        (contest, device, sample) => chooseConvolution(contest, device, sample, choices),
      );
      if (winner !== undefined) choices.convolutions[name] = winner === null ? 'direct' : winner.value;
    }
    return { key, measured: new Date().toISOString(), seconds: (now() - started) / 1000, ...choices, classes };
  } finally {
    await lab.close();
  }
}
