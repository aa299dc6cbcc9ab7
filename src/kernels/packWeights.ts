import type { BufferSource } from '../gpu/gpu.ts';
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
 * Writes weight [taps, rows, columns] to `packed` [taps, columns, rows], or adds it.
 * @param options `flip` turns the order of taps round; `scale` [columns] multiplies.
 */
export function packTransposed(
  weight: Tensor,
  packed: BufferSource,
  shape: { taps: number; rows: number; columns: number },
  { flip = false, scale, accumulate = false }: { flip?: boolean; scale?: Tensor; accumulate?: boolean } = {},
): void {
  const { taps, rows, columns } = shape;
  weight.device.gpu.dispatch(program, {
    buffers: { weight, scale: scale ?? weight, packed },
    uniforms: {
      count: weight.size,
      taps,
      rows,
      columns,
      flip: flip ? 1 : 0,
      scaled: scale ? 1 : 0,
      accumulate: accumulate ? 1 : 0,
    },
    workgroups: workgroupsFor(weight.size),
  });
}
