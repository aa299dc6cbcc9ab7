/** The stages of a model case: which there are, how they lie on the device, and the comparison of their rows. */
import type { Observer, StageValue } from '../model/observer.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { ModelGolden } from './golden.ts';
import { joinOrders, matchRows, orderAmong, reorderRows } from './matching.ts';
import { NHWC } from './operators.ts';
import { readHost, toTorch } from './ops.ts';
import { type Comparison, compareTensors, compareValues, failedRow, type HostTensor, type Row } from './rows.ts';

export type Form = 'train' | 'eval';

const TOLERANCE = 1e-4;

/** Stages that hold one row per RoI of all images, in the order of their boxes. */
const BOX_ROWS = ['box.pool', 'box.head', 'box.class_logits', 'box.box_regression'];
const MASK_ROWS = ['mask.pool', 'mask.logits'];
/** Stages that the file has only with whole gradients. */
const INNER = ['box.pool', 'box.head', 'mask.pool'];

/** Names of the stages of one form without its prefix, in the model's order. */
export function stageNames(golden: ModelGolden, form: Form): string[] {
  const { config, images, full } = golden;
  const each = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${name}.${i}`);
  const levels = config.anchorSizes.length;
  const names = [
    'transform.batch',
    'transform.sizes',
    ...(full ? [...each('features', levels - 1), 'features.pool'] : []),
    ...each('rpn.objectness', levels),
    ...each('rpn.deltas', levels),
    'rpn.anchors',
    ...(form === 'train' ? each('rpn.labels', images) : []),
    ...each('rpn.proposals', images),
    ...(form === 'train'
      ? [...each('box.proposals', images), ...each('box.labels', images), ...each('box.regression_targets', images)]
      : []),
    ...BOX_ROWS,
    ...(config.masks ? MASK_ROWS : []),
  ];
  return full ? names : names.filter((name) => !INNER.includes(name));
}

/** Collects, in torch's layout, what the model hands out under the names asked for. */
export class StageRecorder {
  readonly values = new Map<string, HostTensor>();
  readonly #wanted: ReadonlySet<string>;

  constructor(wanted: Iterable<string>) {
    this.#wanted = new Set(wanted);
  }

  readonly observe: Observer = async (stage: string, value: StageValue) => {
    if (!this.#wanted.has(stage)) return;
    const host = value instanceof Tensor ? await readHost(value) : value;
    // Maps alone have four dimensions; they are channels-last here.
    this.values.set(stage, host.shape.length === 4 ? toTorch(host, NHWC) : host);
  };
}

/** One form's stages, ours and the golden's. */
export class StageComparison {
  readonly #golden: ModelGolden;
  readonly #form: Form;
  readonly #values: ReadonlyMap<string, HostTensor>;

  constructor(golden: ModelGolden, form: Form, values: ReadonlyMap<string, HostTensor>) {
    this.#golden = golden;
    this.#form = form;
    this.#values = values;
  }

  #comparison(name: string): Comparison {
    const exact = ['rpn.labels.', 'box.labels.', 'transform.sizes'].some((start) => name.startsWith(start));
    return {
      name: `${this.#form}.${name}`,
      stage: `${this.#form} stages`,
      tolerance: exact ? 0 : TOLERANCE,
    };
  }

  #expected(name: string): HostTensor {
    return this.#golden.tensors.get(`${this.#form}.${name}`);
  }

  /** How our boxes `name.I` are paired with the golden's, image by image; null where their numbers differ. */
  #boxOrders(name: string): (Int32Array | null)[] {
    return Array.from({ length: this.#golden.images }, (_, image) => {
      const ours = this.#values.get(`${name}.${image}`);
      if (!ours) return null;
      return matchRows(Float32Array.from(ours.data), Float32Array.from(this.#expected(`${name}.${image}`).data), 4);
    });
  }

  /** The rows of the table. @param detected how detections are paired, image by image (eval form). */
  rows(detected: readonly (Int32Array | null)[] = []): Row[] {
    const proposals = this.#boxOrders('rpn.proposals');
    const sampled = this.#form === 'train' ? this.#boxOrders('box.proposals') : [];
    const heads = this.#form === 'train' ? sampled : proposals;
    const masks = this.#form === 'train' ? this.#positiveOrders(sampled) : detected;
    return stageNames(this.#golden, this.#form).map((name) => {
      const image = Number(name.slice(name.lastIndexOf('.') + 1));
      if (name.startsWith('rpn.proposals.')) return this.#row(name, [proposals[image]]);
      if (name.startsWith('box.proposals.') || name.startsWith('box.labels.')) return this.#row(name, [sampled[image]]);
      if (name.startsWith('box.regression_targets.')) return this.#regressionRow(name, image, sampled[image]);
      if (BOX_ROWS.includes(name)) return this.#row(name, heads);
      if (MASK_ROWS.includes(name)) return this.#row(name, masks);
      return this.#row(name);
    });
  }

  /** The mask head of the training form sees the rows with a positive label. */
  #positiveOrders(sampled: readonly (Int32Array | null)[]): (Int32Array | null)[] {
    return sampled.map((order, image) => {
      const ours = this.#values.get(`box.labels.${image}`);
      const expected = this.#expected(`box.labels.${image}`);
      if (!order || !ours) return null;
      return orderAmong(
        order,
        (row) => ours.data[row] > 0,
        (row) => expected.data[row] > 0,
      );
    });
  }

  #row(name: string, orders?: readonly (Int32Array | null)[]): Row {
    const comparison = this.#comparison(name);
    const ours = this.#values.get(name);
    const expected = this.#expected(name);
    if (!ours) return failedRow(comparison, 'the model did not compute it');
    if (!orders || ours.shape[0] !== expected.shape[0]) return compareTensors(ours, expected, comparison);
    const known = orders.filter((order) => order !== null);
    const order = joinOrders(known);
    if (known.length < orders.length || order.length !== ours.shape[0])
      return failedRow(comparison, 'its rows cannot be paired: the boxes they belong to differ');
    const width = ours.data.length / Math.max(ours.shape[0], 1);
    return compareTensors({ shape: ours.shape, data: reorderRows(ours.data, width, order) }, expected, comparison);
  }

  /** Rows of background are encoded against whatever truth comes first and never used: only positive rows count. */
  #regressionRow(name: string, image: number, order: Int32Array | null): Row {
    const comparison = this.#comparison(name);
    const ours = this.#values.get(name);
    const labels = this.#expected(`box.labels.${image}`);
    const expected = this.#expected(name);
    if (!ours) return failedRow(comparison, 'the model did not compute it');
    if (!order || ours.data.length !== expected.data.length)
      return failedRow(comparison, 'its rows cannot be paired: the boxes they belong to differ');
    const inOrder = reorderRows(ours.data, 4, order);
    const positive = (data: Float32Array | Int32Array): number[] =>
      [...data].filter((_, at) => labels.data[Math.floor(at / 4)] > 0);
    return compareValues(positive(inOrder), positive(expected.data), comparison);
  }
}
