import { defineProgram, perElement } from '../gpu/program.ts';
import { columnTile } from './columnTile.ts';
import { rowTile } from './rowTile.ts';

/*
 * The products of the tile family straight from their definitions: one invocation for each element of C, scalar loads, one split. They read
 * the uniforms of the tiles, whose unit is the float here. What the tiles must agree with on an adapter that nobody has seen.
 */
const elementOf = `
    let n = i % u.columns;
    let m = i / u.columns % u.rows;
    let batch = i / (u.columns * u.rows);`;

const finish = (place: string): string => `
    let at = ${place} * u.columns + n;
    if (u.scaled == 1u) { sum *= scale[n]; }
    if (u.biased == 1u) { sum += bias[n]; }
    if (u.hasResidual == 1u) { sum += residual[at]; }
    if (u.relu == 1u) { sum = max(sum, 0.0); }
    if (u.accumulate == 1u) { sum += c[at]; }
    c[at] = sum;`;

const bindings = { a: 'read', b: 'read', scale: 'read', bias: 'read', residual: 'read', c: 'write' } as const;

export const naiveRows = defineProgram({
  name: 'naiveRows',
  uniforms: { ...rowTile.uniforms, count: 'u32' },
  bindings,
  code: () =>
    perElement(`${elementOf}
    let line = m / u.outWidth;
    let image = line / u.outHeight;
    let oy = line % u.outHeight;
    let ox = m % u.outWidth;
    var sum = 0.0;
    for (var down = 0; down < i32(u.tapsDown); down++) {
      let y = i32(oy) * u.stride + down * u.dilation - u.padTop;
      if (y < 0 || y >= i32(u.height)) { continue; }
      for (var across = 0; across < i32(u.tapsAcross); across++) {
        let x = (i32(ox) * u.stride + across * u.dilation - u.padLeft) * u.channels;
        let firstA = i32(batch * u.batchA) + (i32(image * u.height) + y) * i32(u.rowLength) + x;
        let firstB = i32(batch * u.batchB) + u.firstTap + down * u.tapStepDown + across * u.tapStepAcross;
        for (var k = 0; k < i32(u.run); k++) {
          if (x + k < 0 || x + k >= i32(u.rowLength)) { continue; }
          sum += a[firstA + k] * b[u32(firstB + k) * u.columns + n];
        }
      }
    }
    let place = (image * u.targetHeight + oy * u.targetStep + u.targetTop) * u.targetWidth + ox * u.targetStep + u.targetLeft;
    ${finish('(batch * u.targetRows + place)')}`),
});

export const naiveColumns = defineProgram({
  name: 'naiveColumns',
  uniforms: { ...columnTile.uniforms, count: 'u32' },
  bindings,
  code: () =>
    perElement(`${elementOf}
    let tap = m / u.depth;
    let down = i32(tap / u.tapsAcross) * u.dilation - u.padTop;
    let across = i32(tap % u.tapsAcross) * u.dilation - u.padLeft;
    var sum = 0.0;
    // Summing each line by itself keeps the rounding of long sums low.
    for (var line = 0u; line < u.positions / u.outWidth; line++) {
      let y = i32(line % u.outHeight) * u.stride + down;
      if (y < 0 || y >= i32(u.height)) { continue; }
      let firstA = batch * u.batchA + (line / u.outHeight * u.height + u32(y)) * u.rowLength + m % u.depth;
      var lineSum = 0.0;
      for (var ox = 0u; ox < u.outWidth; ox++) {
        let x = (i32(ox) * u.stride + across) * u.channels;
        if (x < 0 || x >= i32(u.rowLength)) { continue; }
        lineSum += a[firstA + u32(x)] * b[(batch * u.batchB + line * u.outWidth + ox) * u.columns + n];
      }
      sum += lineSum;
    }
    ${finish('(batch * u.rows + m)')}`),
});
