import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import type { Tensor } from '../tensor/tensor.ts';

/*
 * Transposes each tap of a weight: packed[tap', j, i] = weight[tap, i, j] · scale[j]?, where tap' = tap, or counted from the end (`flip`: a kernel
 * turned by 180°, as the gradient by the input needs it). With one tap this is the transposition of a matrix.
 */
const program = defineProgram({
  name: 'packTransposed',
  uniforms: { count: 'u32', taps: 'u32', rows: 'u32', columns: 'u32', flip: 'u32', scaled: 'u32', accumulate: 'u32' },
  bindings: { weight: 'read', scale: 'read', packed: 'write' },
  code: () =>
    perElement(`
    let row = i % u.rows;
    let column = i / u.rows % u.columns;
    let place = i / (u.rows * u.columns);
    let tap = select(place, u.taps - 1u - place, u.flip == 1u);
    var value = weight[(tap * u.rows + row) * u.columns + column];
    if (u.scaled == 1u) { value *= scale[column]; }
    if (u.accumulate == 1u) { value += packed[i]; }
    packed[i] = value;`),
});

/**
 * weight [taps, rows, columns] as a new tensor [taps, columns, rows] (or added to `into`).
 * @param options `flip` turns the order of taps round; `scale` [columns] multiplies.
 */
export function packTransposed(
  weight: Tensor,
  shape: { taps: number; rows: number; columns: number },
  { flip = false, scale, into }: { flip?: boolean; scale?: Tensor; into?: Tensor } = {},
): Tensor {
  const { taps, rows, columns } = shape;
  const packed = into ?? weight.device.empty([taps, columns, rows]);
  weight.device.gpu.dispatch(program, {
    buffers: { weight, scale: scale ?? weight, packed },
    uniforms: {
      count: weight.size,
      taps,
      rows,
      columns,
      flip: flip ? 1 : 0,
      scaled: scale ? 1 : 0,
      accumulate: into ? 1 : 0,
    },
    workgroups: workgroupsFor(weight.size),
  });
  return packed;
}

/** The transpose [columns, rows] of a matrix [rows, columns], as a new tensor. */
export function transposeMatrix(matrix: Tensor): Tensor {
  const [rows, columns] = matrix.shape;
  const packed = packTransposed(matrix, { taps: 1, rows, columns });
  const transposed = matrix.device.adopt(packed.view([columns, rows]));
  packed.dispose();
  return transposed;
}
