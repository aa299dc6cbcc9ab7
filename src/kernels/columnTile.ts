import { defineProgram } from '../gpu/program.ts';
import {
  bindings,
  commonUniforms,
  directives,
  element,
  epilogue,
  lines,
  loadA,
  multiplyAdd,
  prologue,
  range,
  readB,
  type TileFlags,
  type TileShape,
  tileRows,
  XYZW,
} from './tile.ts';

/** Positions whose A and B lie in workgroup memory at a time. */
const BLOCK = 8;

/** Positions that a columnTile takes in one step of its loop. */
export function positionsPerStep({ spread, lanes }: Pick<TileShape, 'spread' | 'lanes'>): number {
  if (spread === 'workgroup') return BLOCK;
  return spread === 'subgroup' ? lanes : 1;
}

/** What a row of C and a position mean in A, and reading there. */
function positionAccess(flags: TileFlags): string {
  const { vecA } = flags;
  return `
// Conditions are joined by &, since && branches, and branches around loads make software adapters compile for minutes.
// What a row of C (a tap and a channel) adds to a position's place in A.
struct Tap { y: i32, x: i32 }
fn tapOf(row: u32) -> Tap {
  let tap = row / u.depth;
  let y = i32(tap / u.tapsAcross) * u.dilation - u.padTop;
  let x = i32(tap % u.tapsAcross) * u.dilation - u.padLeft;
  return Tap(y, x * u.channels + i32(row % u.depth)${vecA ? ' / 4' : ''});
}
struct Position { index: u32, image: u32, y: u32, x: u32 }
fn locate(index: u32) -> Position {
  let line = index / u.outWidth;
  return Position(index, line / u.outHeight, line % u.outHeight, index % u.outWidth);
}
// Adds a step digit by digit, so the loop needs no division.
fn advance(p: Position) -> Position {
  var x = p.x + u.stepAcross;
  let carryX = u32(x >= u.outWidth);
  x -= carryX * u.outWidth;
  var y = p.y + u.stepDown + carryX;
  let carryY = u32(y >= u.outHeight);
  y -= carryY * u.outHeight;
  return Position(p.index + ${positionsPerStep(flags)}u, p.image + u.stepImage + carryY, y, x);
}
${loadA(flags)}
fn readA(p: Position, tap: Tap, offset: u32, end: u32) -> ${element(vecA)} {
  let y = i32(p.y) * u.stride + tap.y;
  let x = i32(p.x) * (u.stride * u.channels) + tap.x;
  let inside = (p.index < end) & (u32(y) < u.height) & (u32(x) < u.rowLength);
  return loadA(offset + (p.image * u.height + u32(y)) * u.rowLength + u32(x), inside);
}`;
}

/** The loop over positions in which every lane loads what it needs into registers. */
function registerLoop(flags: TileFlags): string {
  const { rows, vectors, spread, vecA, grouped } = flags;
  const spreads = spread === 'subgroup';
  const steps = positionsPerStep(flags);
  const unit = vecA ? 4 : 1;
  const place = (row: number) => (vecA ? `held${row >> 2}.${XYZW[row & 3]}` : `held${row}`);
  return `
${lines(rows / unit, (q) => `  let tap${q} = tapOf(min(firstRow + ${q * unit}u, u.rows - ${unit}u));`)}
  var position = locate(begin${spreads ? ' + lane' : ''});
  for (var k = begin; k < end; k += ${steps}u) {
${lines(rows / unit, (q) => `    let held${q} = readA(position, tap${q}, offsetA, end);`)}
    position = advance(position);
${lines(steps, (k) =>
  range(vectors)
    .map((j) => `    let b${k}_${j} = readB(firstB + min(k + ${k}u, end - 1u), at${j});`)
    .join('\n'),
)}
${multiplyAdd({ rows, vectors, steps, grouped }, (row, k) => (spreads ? `subgroupBroadcast(${place(row)}, ${k}u)` : place(row)))}
  }`;
}

/** The same through workgroup memory. A lane loads the same four rows of A at every `held`-th position of a block. */
function workgroupLoop(flags: TileFlags): string {
  const { lanes, lanesDown, rows, vectors, vecA } = flags;
  const threads = lanes * lanesDown;
  const vectorsDown = tileRows(flags) / 4;
  const width = lanes * vectors;
  const held = range((BLOCK * vectorsDown) / threads);
  const four = (q: number): string => {
    if (vecA) return `readA(position${q}, tap0, offsetA, end)`;
    return `vec4f(${range(4)
      .map((i) => `readA(position${q}, tap${i}, offsetA, end)`)
      .join(', ')})`;
  };
  return `
  let thread = local.y * ${lanes}u + lane;
  let atBlock = columnsAt(blockVector + thread % ${width}u);
${lines(vecA ? 1 : 4, (i) => `  let tap${i} = tapOf(min(blockRow + thread % ${vectorsDown}u * 4u + ${i}u, u.rows - ${vecA ? 4 : 1}u));`)}
${held.map((q) => `  var position${q} = locate(begin + thread / ${vectorsDown}u + ${(q * threads) / vectorsDown}u);`).join('\n')}
  for (var block = begin; block < end; block += ${BLOCK}u) {
    workgroupBarrier();
${held.map((q) => `    blockA[thread + ${q * threads}u] = ${four(q)}; position${q} = advance(position${q});`).join('\n')}
${lines((BLOCK * width) / threads, (q) => {
  const k = `thread / ${width}u + ${(q * threads) / width}u`;
  return `    blockB[thread + ${q * threads}u] = readB(firstB + min(block + ${k}, end - 1u), atBlock);`;
})}
    workgroupBarrier();
    for (var k = 0u; k < ${BLOCK}u; k++) {
${lines(rows / 4, (q) => `    let held${q} = blockA[k * ${vectorsDown}u + local.y * ${rows / 4}u + ${q}u];`)}
${lines(vectors, (j) => `    let b0_${j} = blockB[k * ${width}u + ${j * lanes}u + lane];`)}
${multiplyAdd({ ...flags, steps: 1 }, (row) => `held${row >> 2}.${XYZW[row & 3]}`)}
    }
  }`;
}

export const columnTile = defineProgram({
  name: 'columnTile',
  uniforms: {
    ...commonUniforms,
    /** Positions in all, and how many of them one split sums. C has a copy (of all products) per split. */
    positions: 'u32',
    chunk: 'u32',
    splits: 'u32',
    /** Channels of A as floats and the taps across, which take a row of C apart. */
    depth: 'u32',
    tapsAcross: 'u32',
    /** positionsPerStep in the mixed radix (image, y, x). */
    stepImage: 'u32',
    stepDown: 'u32',
    stepAcross: 'u32',
  },
  bindings,
  directives,
  code: (flags: TileFlags) => {
    const { lanes, vectors, spread } = flags;
    const shared = spread === 'workgroup';
    return `
${positionAccess(flags)}
${readB(flags)}
${
  shared
    ? `var<workgroup> blockA: array<vec4f, ${(BLOCK * tileRows(flags)) / 4}>;
var<workgroup> blockB: array<vec4f, ${BLOCK * lanes * vectors}>;`
    : ''
}
${prologue(flags)}
  let batch = plane % u.batches;
  let split = plane / u.batches;
  let offsetA = batch * u.batchA;
  let firstB = batch * u.batchB;
  let begin = min(split * u.chunk, u.positions);
  let end = min(begin + u.chunk, u.positions);
${shared ? workgroupLoop(flags) : registerLoop(flags)}
  let limit = select(0u, u.rows, split < u.splits);
${epilogue(flags, 'plane * u.rows + firstRow + r')}`;
  },
});
