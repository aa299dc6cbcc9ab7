import type { Condition } from '../gpu/condition.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { stridedCopy, stridesOf } from './strided.ts';

/*
 * A list of which only the device knows the length is computed in parts, and of those only the parts that it reaches into. Joined, the rows of the
 * others are 0; their gradient goes nowhere, since their backward passes do not run either.
 */
const catParts = defineOperator<Record<string, Tensor>, { conditions: readonly (Condition | null)[] }>({
  name: 'cat_parts',
  forward(inputs, { conditions }) {
    const tensors = Object.values(inputs);
    const [{ device, dtype, shape }] = tensors;
    const rows = tensors.reduce((sum, tensor) => sum + tensor.shape[0], 0);
    const y = device.zeros([rows, ...shape.slice(1)], dtype);
    const strides = stridesOf(y.shape);
    let first = 0;
    for (const [index, tensor] of tensors.entries()) {
      const fits =
        tensor.dtype === dtype &&
        tensor.rank === shape.length &&
        tensor.size * shape[0] === tensor.shape[0] * tensors[0].size;
      expectShape(fits, 'catParts', 'parts', `${tensors[0]} but for the rows`, tensor);
      const to = { tensor: y, start: first * strides[0], strides };
      device.gpu.under(conditions[index], () => stridedCopy('catParts', tensor.shape, { tensor, strides }, to));
      first += tensor.shape[0];
    }
    return { output: y };
  },
  backward: ({ shapes, upstream }) => {
    const strides = stridesOf(upstream.shape);
    const thunks: Record<string, (into?: Tensor) => Tensor> = {};
    let next = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const start = next * strides[0];
      next += shape[0];
      thunks[name] = (into) => {
        const dx = into ?? upstream.device.empty(shape);
        const from = { tensor: upstream, start, strides };
        stridedCopy('catParts', shape, from, { tensor: dx, strides }, { accumulate: into !== undefined });
        return dx;
      };
    }
    return thunks;
  },
  examples: [
    { inputs: { a: { shape: [2, 3] }, b: { shape: [1, 3] } }, params: { conditions: [null, null] } },
    { inputs: { a: { shape: [3, 2, 2] } }, params: { conditions: [null] } },
  ],
});

/**
 * compute(0, step), compute(step, step) … joined along their rows; rows of parts that begin at or behind `count` are 0, and neither they nor their
 * gradients are computed. A row behind the count in a part that begins before it is computed as any other.
 *
 * @param count u32 [1]: how many rows the list has, at most `length`
 * @param compute a part of the list, float32 [rows, …], from its first row and its number of rows; what it reads of the list it must `narrow` itself
 */
export async function listParts(
  count: Tensor,
  { length, step }: { length: number; step: number },
  compute: (first: number, rows: number) => Promise<Tensor>,
): Promise<Tensor> {
  const { device } = count;
  const parts = Math.ceil(length / step);
  const computed: Record<string, Tensor> = {};
  const conditions: Condition[] = [];
  for (let part = 0; part < parts; part++) {
    const first = part * step;
    await device.onlyWithin(count, { step, part, parts }, async () => {
      computed[`t${part}`] = await compute(first, Math.min(step, length - first));
      conditions.push(device.gpu.condition as Condition);
    });
  }
  return catParts(computed, { conditions });
}
