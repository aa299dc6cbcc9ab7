import { UserError } from '../cli/errors.ts';
import type { AdapterKind } from '../gpu/adapter.ts';
import type { Device } from '../tensor/device.ts';
import type { TileShape } from './tile.ts';

/*
 * Which kernel computes what on which adapter. All of it is here: the tiles, the built-in table that chooses among them by adapter, and the
 * families that a user or a test can force instead.
 */

/** A matrix product C[rows, columns], each element a sum over `depth`: A·B (`row`) or Aᵀ·B (`column`), see `tile.ts`. */
export interface ProductProblem {
  direction: 'row' | 'column';
  rows: number;
  columns: number;
  depth: number;
}

/** A convolution of a form that Winograd's algorithm could compute, see `winograd.ts`. */
export interface ConvolutionProblem {
  direction: 'forward' | 'inputGradient' | 'weightGradient';
  images: number;
  height: number;
  width: number;
  /** Channels of x and of y. */
  channels: number;
  outChannels: number;
}

/** The seam for whoever knows better than the table: a function from problem to kernel for one device. */
export interface KernelChoice {
  product(problem: ProductProblem): TileShape | 'naive';
  convolution(problem: ConvolutionProblem): 'direct' | 'winograd';
  /** Whether any of its choices rounds more coarsely than a sum of products in float32. */
  readonly coarse: boolean;
}

/** 16 × 64 by 8 lanes: lavapipe. 32 × 32 by 4 lanes: SwiftShader. Measured best or nearly best, and quick to compile. */
const subgroupTiles: Readonly<Record<number, TileShape>> = {
  8: { lanes: 8, lanesDown: 1, rows: 16, vectors: 2, spread: 'subgroup', source: 'buffer', parallelism: 16 },
  4: { lanes: 4, lanesDown: 1, rows: 32, vectors: 2, spread: 'subgroup', source: 'buffer', parallelism: 16 },
};

/** For software adapters without subgroups, which have no use for workgroup memory either. */
const directTile: TileShape = {
  lanes: 8,
  lanesDown: 1,
  rows: 16,
  vectors: 1,
  spread: 'direct',
  source: 'buffer',
  parallelism: 16,
};

/** The classic tile of GPUs: 64 × 64 by 64 lanes, 8 × 8 each. Verified on software adapters, measured on none it is meant for. */
const workgroupTile: TileShape = {
  lanes: 8,
  lanesDown: 8,
  rows: 8,
  vectors: 2,
  spread: 'workgroup',
  source: 'buffer',
  parallelism: 1024,
};

/** The subgroup tile of a device, where it has one: lanes are trusted to be one subgroup only if every subgroup has exactly that size. */
export function subgroupTile(device: Device): TileShape | null {
  const { subgroupMinSize, subgroupMaxSize, device: gpuDevice } = device.gpu.opened;
  const fixed = gpuDevice.features.has('subgroups') && subgroupMinSize === subgroupMaxSize;
  const tile = (fixed && subgroupTiles[subgroupMinSize]) || null;
  return tile && { ...tile, source: cheapSource(device) };
}

/** On lavapipe a load from a texture costs a sixth of one from a buffer; on SwiftShader half as much again. */
function cheapSource(device: Device): TileShape['source'] {
  return device.gpu.opened.info.kind === 'lavapipe' ? 'texture' : 'buffer';
}

/** The table of tiles by adapter. */
function bestTile(device: Device): TileShape {
  const tile = subgroupTile(device);
  if (tile) return tile;
  const { kind } = device.gpu.opened.info;
  return kind === 'gpu' || kind === 'cpu' ? workgroupTile : { ...directTile, source: cheapSource(device) };
}

/** A second vector of columns is left out where all columns fit into the first: half the lane would compute nothing. */
export function fitted(tile: TileShape, { columns }: ProductProblem): TileShape {
  return { ...tile, vectors: Math.min(tile.vectors, Math.max(1, Math.ceil(columns / (tile.lanes * 4)))) };
}

/**
 * Products of few columns on software adapters: a lane for each block of rows, which reads all of it directly, since lanes along the columns
 * would mostly compute nothing. Up to so many columns, and the rows of a block by direction; measured, the table's tile takes twice as long.
 */
const narrowTiles: Partial<
  Record<AdapterKind, { columns: number; rows: Record<ProductProblem['direction'], number> }>
> = {
  lavapipe: { columns: 16, rows: { row: 8, column: 4 } },
  swiftshader: { columns: 4, rows: { row: 16, column: 16 } },
};

/** From so many rows of C on, lavapipe's tile is twice as high for A·B: it takes a tenth less, and twice as long to compile. */
const HIGH_TILE = { rows: 32, least: 256 };

/** The table's tile for a problem. */
function tabled(device: Device, tile: TileShape, problem: ProductProblem): TileShape {
  const { direction, rows, columns } = problem;
  const { kind } = device.gpu.opened.info;
  const narrow = narrowTiles[kind];
  if (narrow && columns <= narrow.columns) {
    const vectors = Math.max(1, Math.ceil(columns / 4));
    return { ...tile, lanes: 1, lanesDown: 8, rows: narrow.rows[direction], vectors, spread: 'direct' };
  }
  const high = kind === 'lavapipe' && direction === 'row' && rows >= HIGH_TILE.least && tile.spread === 'subgroup';
  return fitted(high ? { ...tile, rows: HIGH_TILE.rows } : tile, problem);
}

/**
 * Winograd's transforms cost in proportion to the channels, what it saves to their square; and those of the weights cost the same for
 * few tiles as for many.
 */
function winogradPays(device: Device, { images, height, width, channels, outChannels }: ConvolutionProblem): boolean {
  const { kind } = device.gpu.opened.info;
  // Nobody has measured it on a real GPU.
  if (kind === 'gpu') return false;
  const least = kind === 'swiftshader' ? { channels: 32, tiles: 24 } : { channels: 64, tiles: 32 };
  const tiles = images * Math.ceil(height / 4) * Math.ceil(width / 4);
  return tiles >= least.tiles && Math.min(channels, outChannels) >= least.channels;
}

/**
 * Whether Winograd's products add up a few at a time before they meet the sum, see `multiplyAdd`: half the rounding, which the transforms magnify.
 * Measured, it costs nothing on lavapipe (0.96 to 1.03 of the time); on SwiftShader it takes 3 % more, and a GPU would do five operations for four.
 */
export function groupsSums({ gpu }: Device): boolean {
  return gpu.opened.info.kind === 'lavapipe';
}

/** The values of `--kernels`. */
export const kernelFamilies = ['auto', 'naive', 'tile', 'subgroup', 'winograd'] as const;
export type KernelFamily = (typeof kernelFamilies)[number];

/** Checks a text from the command line or the environment. @throws UserError that lists the families */
export function parseKernelFamily(text: string): KernelFamily {
  const family = kernelFamilies.find((known) => known === text);
  if (family === undefined)
    throw new UserError(`Unknown kernels "${text}": expected one of ${kernelFamilies.join(', ')}.`);
  return family;
}

/**
 * The choice of a family: `auto`, the table; `naive`, each element by itself; `tile`, the classic tile in workgroup memory; `subgroup`,
 * the tile of subgroup broadcasts; `winograd`, the table's tile, and Winograd's algorithm for every convolution of its form.
 * @throws UserError for `subgroup` on a device whose subgroups fit no tile
 */
export function familyChoice(device: Device, family: KernelFamily): KernelChoice {
  if (family === 'naive') return { product: () => 'naive', convolution: () => 'direct', coarse: false };
  if (family === 'subgroup' && !subgroupTile(device)) {
    throw new UserError(
      `--kernels subgroup: ${device.gpu.opened.info.name} has no subgroups of a fixed size of ${Object.keys(subgroupTiles).join(' or ')} lanes.`,
    );
  }
  const tile = family === 'tile' ? workgroupTile : bestTile(device);
  const pays = (problem: ConvolutionProblem): boolean =>
    family === 'winograd' || (family === 'auto' && winogradPays(device, problem));
  const byTable = family === 'auto' || family === 'winograd';
  return {
    product: (problem) => (byTable ? tabled(device, tile, problem) : fitted(tile, problem)),
    convolution: (problem) => (pays(problem) ? 'winograd' : 'direct'),
    coarse: family === 'winograd',
  };
}

const choices = new WeakMap<Device, KernelChoice>();

/** What computes on a device from now on; the table's choice until this is called. */
export function setKernelChoice(device: Device, choice: KernelChoice): void {
  choices.set(device, choice);
}

/** What computes on a device now. */
export function kernelChoice(device: Device): KernelChoice {
  let choice = choices.get(device);
  if (!choice) {
    choice = familyChoice(device, 'auto');
    choices.set(device, choice);
  }
  return choice;
}
