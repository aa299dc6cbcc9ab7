import type { Condition } from '../gpu/condition.ts';
import { defineOperator, expectShape } from '../tensor/operator.ts';
import { section } from '../tensor/parts.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { copyElements } from './cast.ts';

/*
 * A list of which only the device knows the length is computed in parts, and of those only the parts that it reaches into. Joined, the rows of the
 * others are 0; their gradient goes nowhere, since their backward passes do not run either.
 */

/** Copies between a tensor and a run of rows of a longer one, or adds to where it copies to. Rows are whole words of 4 bytes. */
function copyRows(list: Tensor, first: number, part: Tensor, to: 'list' | 'part', accumulate = false): void {
  const start = (first * list.size) / list.shape[0];
  const words = list.bytes / list.shape[0] / 4;
  expectShape(Number.isInteger(words), 'listParts', 'x', 'rows of an even number of elements in float16', list);
  const { tensor: rows, finish } = section(list, start, part.shape, to === 'list');
  if (to === 'list') copyElements(part, rows, accumulate);
  else copyElements(rows, part, accumulate);
  finish();
}

const listRows = defineOperator<{ x: Tensor }, { first: number; rows: number }>({
  name: 'list_rows',
  halves: ['x'],
  forward({ x }, { first, rows }) {
    const y = x.device.empty([rows, ...x.shape.slice(1)], x.dtype);
    copyRows(x, first, y, 'part');
    return { output: y };
  },
  backward: ({ params: { first }, shapes, dtypes, upstream }) => ({
    x: (into) => {
      const dx = into ?? upstream.device.zeros(shapes.x, dtypes.x);
      copyRows(dx, first, upstream, 'list', into !== undefined);
      return dx;
    },
  }),
  examples: [{ inputs: { x: { shape: [5, 6] } }, params: { first: 2, rows: 2 } }],
});

const catParts = defineOperator<Record<string, Tensor>, { conditions: readonly (Condition | null)[] }>({
  name: 'cat_parts',
  halves: 'all',
  forward(inputs, { conditions }) {
    const tensors = Object.values(inputs);
    const [{ device, dtype, shape }] = tensors;
    const rows = tensors.reduce((sum, tensor) => sum + tensor.shape[0], 0);
    const y = device.zeros([rows, ...shape.slice(1)], dtype);
    let first = 0;
    for (const [index, tensor] of tensors.entries()) {
      const fits =
        tensor.dtype === dtype &&
        tensor.rank === shape.length &&
        tensor.size * shape[0] === tensor.shape[0] * tensors[0].size;
      expectShape(fits, 'catParts', 'parts', `${tensors[0]} but for the rows`, tensor);
      device.gpu.under(conditions[index], () => copyRows(y, first, tensor, 'list'));
      first += tensor.shape[0];
    }
    return { output: y };
  },
  backward: ({ shapes, dtypes, upstream }) => {
    const thunks: Record<string, (into?: Tensor) => Tensor> = {};
    let next = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const first = next;
      next += shape[0];
      thunks[name] = (into) => {
        const dx = into ?? upstream.device.empty(shape, dtypes[name]);
        copyRows(upstream, first, dx, 'part', into !== undefined);
        return dx;
      };
    }
    return thunks;
  },
  examples: [
    { inputs: { a: { shape: [2, 6] }, b: { shape: [1, 6] } }, params: { conditions: [null, null] } },
    { inputs: { a: { shape: [3, 2, 2] } }, params: { conditions: [null] } },
  ],
});

/** A list on the device that is as long as it may become, `count` (u32 [1]) of its rows being real, the first ones. */
export interface PaddedList {
  count: Tensor;
  /** Rows of a part, where it is computed in parts; else it is computed whole. */
  step?: number;
}

/**
 * compute(0, step), compute(step, step) … joined along their rows; rows of parts that begin at or behind `count` are 0, and neither they nor their
 * gradients are computed. A row behind the count in a part that begins before it is computed as any other.
 *
 * @param length rows of the padded list
 * @param compute a part of the list, [rows, …], from its first row and its number of rows; what it reads of the list it must `narrow` itself
 */
export function listParts(list: PaddedList, length: number, compute: (first: number, rows: number) => Tensor): Tensor {
  const { count, step = length } = list;
  const { device } = count;
  const parts = Math.ceil(length / step);
  const computed: Record<string, Tensor> = {};
  const conditions: Condition[] = [];
  for (let part = 0; part < parts; part++) {
    const first = part * step;
    device.onlyWithin(count, { step, part, parts }, () => {
      computed[`t${part}`] = device.scope(() => compute(first, Math.min(step, length - first)));
      conditions.push(device.gpu.condition as Condition);
    });
  }
  return catParts(computed, { conditions });
}

/** compute(x), part by part where the list is computed so: see `listParts`. */
export function mapList(list: PaddedList | undefined, x: Tensor, compute: (part: Tensor) => Tensor): Tensor {
  if (list?.step === undefined) return compute(x);
  return x.device.scope(() => listParts(list, x.shape[0], (first, rows) => compute(listRows({ x }, { first, rows }))));
}
