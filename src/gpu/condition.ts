import type { Gpu } from './gpu.ts';
import type { PooledBuffer } from './pool.ts';
import { defineProgram, perElement, workgroupsFor } from './program.ts';

/*
 * Work of which only the device knows how much there is. A list is as long as it may become and is computed in parts of `step` entries; a
 * part that begins behind the list's end costs nothing: its dispatches read their grids from the device, where they are empty.
 */

/** Holds where `count[0]` (u32) is above part · step. */
export interface Condition {
  readonly count: PooledBuffer;
  /** Entries of a part. */
  readonly step: number;
  readonly part: number;
  /** How many parts there are: their grids are written together. */
  readonly parts: number;
}

const GRID_BYTES = 12;

const program = defineProgram({
  name: 'conditionalGrids',
  uniforms: { count: 'u32', step: 'u32', x: 'u32', y: 'u32', z: 'u32' },
  bindings: { total: ['read', 'u32'], grids: ['write', 'u32'] },
  code: () =>
    perElement(`
    let runs = total[0] > i * u.step;
    grids[3u * i] = select(0u, u.x, runs);
    grids[3u * i + 1u] = select(0u, u.y, runs);
    grids[3u * i + 2u] = select(0u, u.z, runs);`),
});

/** Where the grid of a dispatch under a condition lies; it is kept while the count is what it was. */
export function conditionalGrid(
  gpu: Gpu,
  { count, step, part, parts }: Condition,
  [x, y, z]: readonly [number, number, number],
): { buffer: GPUBuffer; offset: number } {
  const grids = gpu.derived.get([count], `grids ${[step, parts, x, y, z]}`, () => {
    const buffer = gpu.pool.acquire(parts * GRID_BYTES, 'operands');
    gpu.dispatch(program, {
      buffers: { total: count, grids: buffer },
      uniforms: { count: parts, step, x, y, z },
      workgroups: workgroupsFor(parts),
    });
    return buffer;
  }) as PooledBuffer;
  return { buffer: grids.gpuBuffer, offset: grids.offset + part * GRID_BYTES };
}
