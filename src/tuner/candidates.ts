import type { ProductProblem } from '../kernels/kernelChoice.ts';
import { fitted } from '../kernels/kernelChoice.ts';
import { type TileShape, tileColumns, tileRows } from '../kernels/tile.ts';
import type { Device } from '../tensor/device.ts';

/** Depth of the blocks in workgroup memory, see `rowTile.ts` and `columnTile.ts`. */
const BLOCKS = { row: 16, column: 8 } as const;
const VEC4_BYTES = 16;

/** What a device allows of tiles. */
export interface TileLimits {
  limits: Pick<
    GPUSupportedLimits,
    | 'maxComputeInvocationsPerWorkgroup'
    | 'maxComputeWorkgroupSizeX'
    | 'maxComputeWorkgroupSizeY'
    | 'maxComputeWorkgroupStorageSize'
  >;
  /** The size that all subgroups have; null where they differ or there are none. */
  subgroup: number | null;
}

export function tileLimits({ gpu }: Device): TileLimits {
  const { subgroupMinSize, subgroupMaxSize } = gpu.opened;
  const fixed = gpu.device.features.has('subgroups') && subgroupMinSize === subgroupMaxSize;
  return { limits: gpu.limits, subgroup: fixed ? subgroupMinSize : null };
}

const whole = (value: number): boolean => Number.isInteger(value) && value >= 1;

/**
 * Whether a tile is one that the generators can write in a direction, and that a device can run: each lane loads whole vectors of a block,
 * and workgroup memory and lanes are within the limits.
 */
export function tileIsLegal(
  tile: TileShape,
  direction: ProductProblem['direction'],
  { limits, subgroup }: TileLimits,
): boolean {
  const { lanes, lanesDown, rows, vectors, spread } = tile;
  if (rows % 4 !== 0) return false;
  if (spread === 'subgroup') return lanes === subgroup && lanesDown === 1 && rows % lanes === 0;
  const threads = lanes * lanesDown;
  if (
    threads > limits.maxComputeInvocationsPerWorkgroup ||
    lanes > limits.maxComputeWorkgroupSizeX ||
    lanesDown > limits.maxComputeWorkgroupSizeY
  )
    return false;
  if (spread === 'direct') return true;
  const block = BLOCKS[direction];
  const [blockA, blockB] = [(block * tileRows(tile)) / 4, block * lanes * vectors];
  if ((blockA + blockB) * VEC4_BYTES > limits.maxComputeWorkgroupStorageSize) return false;
  // A lane's part of A has the same column of the block (row tile) or the same four rows (column tile) at each load.
  const cycle = direction === 'row' ? block / 4 : tileRows(tile) / 4;
  return whole(blockA / threads) && whole(blockB / threads) && whole(threads / cycle) && whole(lanesDown / vectors);
}

/** A tile for a problem: without vectors that would compute nothing, if it is still one that can run. */
export function fittedLegally(tile: TileShape, problem: ProductProblem, has: TileLimits): TileShape {
  const smaller = fitted(tile, problem);
  return tileIsLegal(smaller, problem.direction, has) ? smaller : tile;
}

/** [lanes, lanesDown, rows, vectors] of tiles in workgroup memory, the most likely first: 64 × 64, 32 × 64, 128 × 64, 32 × 32, … */
const workgroupCuts: readonly (readonly [number, number, number, number])[] = [
  [8, 8, 8, 2],
  [16, 16, 4, 1],
  [8, 8, 4, 2],
  [16, 8, 8, 1],
  [16, 16, 8, 1],
  [8, 8, 4, 1],
  [16, 16, 8, 2],
  [8, 8, 8, 1],
];
const directCuts: readonly (readonly [number, number, number, number])[] = [
  [16, 4, 8, 1],
  [8, 8, 4, 1],
];

const softwareDirect = [8, 1, 16, 1] as const;

/** The tiles that are tried for a problem, by buffers, the most likely first. */
export function tileCandidates(device: Device, problem: ProductProblem): TileShape[] {
  const { kind } = device.gpu.opened.info;
  const realGpu = kind === 'gpu';
  const has = tileLimits(device);
  const { subgroup } = has;
  const parallelism = realGpu ? 1024 : 16;
  const cut =
    (spread: TileShape['spread']) =>
    ([lanes, lanesDown, rows, vectors]: readonly [number, number, number, number]): TileShape => ({
      lanes,
      lanesDown,
      rows,
      vectors,
      spread,
      source: 'buffer',
      parallelism,
    });
  const subgroupCuts: [number, number, number, number][] =
    subgroup === null || subgroup > 32
      ? []
      : [
          [subgroup, 1, Math.max(16, subgroup), 1],
          [subgroup, 1, Math.max(16, subgroup), 2],
          [subgroup, 1, Math.max(32, subgroup), subgroup < 8 ? 2 : 1],
        ];
  const ofSubgroups = subgroupCuts.map(cut('subgroup'));
  const ofWorkgroups = workgroupCuts.map(cut('workgroup'));
  const direct = (realGpu ? directCuts : [softwareDirect]).map(cut('direct'));
  // Software adapters compile a tile for a second, and those of GPUs never came near there: one of them stands for all.
  const all = realGpu ? [...ofWorkgroups, ...ofSubgroups, ...direct] : [...ofSubgroups, ...direct, ofWorkgroups[0]];
  const legal = all.filter((tile) => tileIsLegal(tile, problem.direction, has));
  return distinct(legal.map((tile) => fittedLegally(tile, problem, has)));
}

const same = (a: TileShape, b: TileShape): boolean => tileName(a) === tileName(b) && a.parallelism === b.parallelism;

/** Each tile once. */
export function distinct(tiles: readonly TileShape[]): TileShape[] {
  return tiles.filter((tile, i) => tiles.findIndex((other) => same(tile, other)) === i);
}

/** A tile in words: `64×64 by 8×8 lanes, workgroup, buffer`. */
export function tileName(tile: TileShape): string {
  const { lanes, lanesDown, spread, source } = tile;
  return `${tileRows(tile)}×${tileColumns(tile)} by ${lanesDown}×${lanes} lanes, ${spread}, ${source}`;
}
