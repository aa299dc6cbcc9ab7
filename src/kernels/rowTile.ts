import { defineProgram } from '../gpu/program.ts';
import {
  bindings,
  commonUniforms,
  directives,
  epilogue,
  lines,
  loadA,
  multiplyAdd,
  prologue,
  range,
  readB,
  type TileFlags,
  tileRows,
  XYZW,
} from './tile.ts';

/** Elements of A that a lane reads in one turn of its loop, one vec4; of them it takes `steps` (see `TileFlags`). */
const UNROLL = 4;
/** Reduction steps whose A and B lie in workgroup memory at a time. */
const BLOCK = 16;

/** A's run at a tap, and reading four of its elements. */
function runAccess(flags: TileFlags): string {
  const { vecA } = flags;
  return `
struct Row { image: i32, y: i32, x: i32, place: u32 }
// A's run at one tap: element k lies at base + k and counts when start <= k < start + span, else it is zero padding.
struct Run { base: u32, start: u32, span: u32 }
fn locate(row: u32) -> Row {
  let line = row / u.outWidth;
  let x = row % u.outWidth;
  let image = line / u.outHeight;
  let y = line % u.outHeight;
  let place = (image * u.targetHeight + y * u.targetStep + u.targetTop) * u.targetWidth + x * u.targetStep + u.targetLeft;
  return Row(i32(image * u.height), i32(y) * u.stride - u.padTop, (i32(x) * u.stride - u.padLeft) * u.channels, place);
}
fn enter(row: Row, offset: u32, down: i32, across: i32) -> Run {
  let y = row.y + down * u.dilation;
  let x = row.x + across * u.dilation * u.channels;
  let start = max(0, -x);
  let end = min(i32(u.run${vecA ? ' / 4u' : ''}), i32(u.rowLength) - x);
  let span = select(0, max(0, end - start), u32(y) < u.height);
  return Run(offset + u32((row.image + y) * i32(u.rowLength) + x), u32(start), u32(span));
}
${loadA(flags)}
${
  vecA
    ? 'fn readA(run: Run, k: u32) -> vec4f { return loadA(run.base + k / 4u, k / 4u - run.start < run.span); }'
    : `
fn readOne(run: Run, k: u32) -> f32 { return loadA(run.base + k, k - run.start < run.span); }
fn readA(run: Run, k: u32) -> vec4f { return vec4f(readOne(run, k), readOne(run, k + 1u), readOne(run, k + 2u), readOne(run, k + 3u)); }`
}`;
}

/** The loop over a run in which every lane loads what it needs into registers. Each holder is a row of A whose address a lane keeps. */
function registerLoop(flags: TileFlags, holders: number, fromHolder: FromHolder): string {
  const { vectors, vecA, steps } = flags;
  return `
  for (var k = 0u; k < u.run; k += ${UNROLL}u) {
${lines(holders, (q) => `    let held${q} = readA(run${q}, k);`)}
${lines(steps, (k) => {
  // A run that is no multiple of the unrolling ends with zeros of A; what they meet in B must be numbers, so it is the last row again.
  const row = vecA ? `k + ${k}u` : `min(k + ${k}u, u.run - 1u)`;
  return range(vectors)
    .map((j) => `    let b${k}_${j} = readB(firstB + ${row}, at${j});`)
    .join('\n');
})}
${multiplyAdd(flags, (row, k) => fromHolder(row, (q) => `held${q}.${XYZW[k]}`))}
  }`;
}

type FromHolder = (row: number, expression: (holder: number) => string) => string;

/** The same through workgroup memory. Holder q is the row of which this lane loads a vec4, always of the same k within a block. */
function workgroupLoop(flags: TileFlags, holders: number): string {
  const { lanes, lanesDown, rows, vectors, steps } = flags;
  const width = lanes * vectors;
  const threads = lanes * lanesDown;
  return `
  for (var block = 0u; block < u.run; block += ${BLOCK}u) {
    workgroupBarrier();
${lines(holders, (q) => `    blockA[thread + ${q * threads}u] = readA(run${q}, block + thread % ${BLOCK / 4}u * 4u);`)}
${lines((BLOCK * width) / threads, (q) => {
  const k = `thread / ${width}u + ${(q * threads) / width}u`;
  return `    blockB[thread + ${q * threads}u] = readB(firstB + min(block + ${k}, u.run - 1u), atBlock);`;
})}
    workgroupBarrier();
    for (var k = 0u; k < ${BLOCK}u; k += 4u) {
${lines(rows, (r) => `    let held${r} = blockA[(local.y * ${rows}u + ${r}u) * ${BLOCK / 4}u + k / 4u];`)}
${lines(steps, (k) =>
  range(vectors)
    .map((j) => `    let b${k}_${j} = blockB[(k + ${k}u) * ${width}u + ${j * lanes}u + lane];`)
    .join('\n'),
)}
${multiplyAdd(flags, (row, k) => `held${row}.${XYZW[k]}`)}
    }
  }`;
}

export const rowTile = defineProgram({
  name: 'rowTile',
  uniforms: {
    ...commonUniforms,
    /** Taps and, at each, the length of A's run (floats) that meets as many rows of B. */
    tapsDown: 'u32',
    tapsAcross: 'u32',
    run: 'u32',
    /** First row of B of the first tap, and steps from tap to tap. */
    firstTap: 'i32',
    tapStepDown: 'i32',
    tapStepAcross: 'i32',
    /** Position (image, y, x) writes C's row (image, y · step + top, x · step + left) of an image of this height and width. */
    targetHeight: 'u32',
    targetWidth: 'u32',
    targetStep: 'u32',
    targetTop: 'u32',
    targetLeft: 'u32',
    /** Rows of C of one product. */
    targetRows: 'u32',
  },
  bindings,
  directives,
  code: (flags: TileFlags) => {
    const { lanes, lanesDown, rows, vectors, spread } = flags;
    const shared = spread === 'workgroup';
    const spreads = spread === 'subgroup';
    const blockA = (tileRows(flags) * BLOCK) / 4;
    const threads = lanes * lanesDown;
    // With subgroups a lane holds every lanes-th row, in a workgroup the rows it loads, else all of its own.
    const holders = shared ? blockA / threads : spreads ? rows / lanes : rows;
    const held = (q: number): string => {
      if (shared) return `blockRow + (thread + ${q * threads}u) / ${BLOCK / 4}u`;
      return spreads ? `firstRow + ${q * lanes}u + lane` : `firstRow + ${q}u`;
    };
    const fromHolder: FromHolder = (row, expression) =>
      spreads ? `subgroupBroadcast(${expression(Math.floor(row / lanes))}, ${row % lanes}u)` : expression(row);
    const places = `
  let places = array<u32, ${holders}>(${range(holders)
    .map((q) => `row${q}.place`)
    .join(', ')});`;
    const place = spreads ? `subgroupShuffle(places[r / ${lanes}u], r % ${lanes}u)` : 'places[r]';
    return `
${runAccess(flags)}
${readB(flags)}
${
  shared
    ? `var<workgroup> blockA: array<vec4f, ${blockA}>;
var<workgroup> blockB: array<vec4f, ${BLOCK * lanes * vectors}>;`
    : ''
}
${prologue(flags)}
${shared ? `  let thread = local.y * ${lanes}u + lane; let atBlock = columnsAt(blockVector + thread % ${lanes * vectors}u);` : ''}
${lines(holders, (q) => `  let row${q} = locate(min(${held(q)}, u.rows - 1u));`)}
  let offsetA = plane * u.batchA;
  for (var down = 0; down < i32(u.tapsDown); down++) { for (var across = 0; across < i32(u.tapsAcross); across++) {
${lines(holders, (q) => `  let run${q} = enter(row${q}, offsetA, down, across);`)}
  let firstB = plane * u.batchB + u32(u.firstTap + down * u.tapStepDown + across * u.tapStepAcross);
${shared ? workgroupLoop(flags, holders) : registerLoop(flags, holders, fromHolder)}
  } }
  let limit = select(0u, u.rows, plane < u.batches);
${shared ? '' : places}
${epilogue(flags, `plane * u.targetRows + ${shared ? 'locate(firstRow + r).place' : place}`)}`;
  },
});
