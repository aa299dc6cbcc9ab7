import type { SampleOrder } from '../kernels/sampler.ts';

/**
 * Weights and orders of sampling by formula: the golden cases' published format (`hash_uniform`, `formula_weight` and
 * `permutation` of goldens/make_goldens.py). Both sides compute them, so no weights need be stored. All arithmetic is
 * float64, rounded once to float32.
 */

/** The i-th hash is murmur3's fmix32 of `start + i * 0x9E3779B9`, as a number in [-1, 1). */
function uniformAt(start: number, i: number): number {
  let x = (start + Math.imul(i, 0x9e3779b9)) >>> 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  x ^= x >>> 16;
  return (x >>> 0) / 2147483648 - 1;
}

/** FNV-1a of the name's UTF-8 bytes, xor the seed's low 32 bits. */
function hashStart(name: string, seed: number): number {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) h = Math.imul(h ^ byte, 0x01000193);
  return (h ^ seed) >>> 0;
}

/** `count` values in [-1, 1), a function of `name` and `seed` (an integer) alone. */
export function hashUniform(name: string, count: number, seed: number): Float64Array {
  const start = hashStart(name, seed);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i++) out[i] = uniformAt(start, i);
  return out;
}

export interface FormulaWeightOptions {
  /** The backbone has basic blocks: a residual branch then ends with `bn2`, else with `bn3`. */
  basicBlocks: boolean;
}

/** From a hash in [-1, 1) to the weight; the order of operations is the format's, to the last bit. */
type Formula = (u: number) => number;

function formulaOf(name: string, shape: readonly number[], { basicBlocks }: FormulaWeightOptions): Formula {
  const parts = name.split('.');
  const leaf = parts.at(-1);
  const module = parts.at(-2) ?? '';
  // The norm behind a head's convolution (`headNorm`), as `layer_blocks.0.1.weight`.
  const headNorm = /\.(inner_blocks|layer_blocks|box_head|mask_head)\.\d+\.1\./.test(name);
  if (module.startsWith('bn') || name.includes('.downsample.1.') || headNorm) {
    if (leaf === 'bias' || leaf === 'running_mean') return (u) => 0.1 * u;
    if (leaf !== 'weight') return (u) => 1 + 0.3 * u;
    // The last norm of a residual branch is damped, else activations grow with depth.
    const last = name.includes('.bn3.') || (basicBlocks && name.includes('.bn2.'));
    const factor = last ? 0.25 : 1;
    return (u) => factor * (1 + 0.2 * u);
  }
  if (leaf === 'bias') return (u) => 0.05 * u;
  let scale: number;
  if (name.endsWith('conv5_mask.weight')) {
    scale = Math.sqrt(3 / shape[0]); // ConvTranspose2d: [in, out, 2, 2]
  } else {
    const fanIn = shape.slice(1).reduce((product, side) => product * side, 1);
    let gain = 6;
    if (name.includes('rpn.head.bbox_pred')) gain = 0.02;
    else if (name.includes('box_predictor.bbox_pred')) gain = 0.5;
    else if (name.includes('cls_logits') || name.includes('cls_score') || name.includes('.fpn.')) gain = 1;
    scale = Math.sqrt(gain / fanIn);
  }
  return (u) => scale * u;
}

/**
 * The value of one state_dict entry, row-major in torchvision's layout (convolutions [out, in, kh, kw]).
 * @param name torchvision's state_dict name; `num_batches_tracked` is no weight and has no formula (it stays 0)
 */
export function formulaWeight(
  name: string,
  shape: readonly number[],
  seed: number,
  options: FormulaWeightOptions,
): Float32Array<ArrayBuffer> {
  const formula = formulaOf(name, shape, options);
  const start = hashStart(name, seed);
  const out = new Float32Array(shape.reduce((product, side) => product * side, 1));
  for (let i = 0; i < out.length; i++) out[i] = formula(uniformAt(start, i));
  return out;
}

export const goldenPermutationKinds = ['identity', 'reversed', 'hashed'] as const;
export type GoldenPermutationKind = (typeof goldenPermutationKinds)[number];

/**
 * What stands for `torch.randperm`: 0 … n-1, n-1 … 0, or the stable argsort of `hashUniform('randperm', n, seed)`, whose order is
 * that of its 32-bit hashes.
 */
export function goldenSampleOrder(kind: GoldenPermutationKind, seed: number): SampleOrder {
  return kind === 'hashed' ? { kind, start: hashStart('randperm', seed) } : { kind };
}
