import { describe, expect, it } from 'vitest';
import {
  formulaWeight,
  type GoldenPermutationKind,
  goldenSampleOrder,
  hashUniform,
} from '../../src/model/formulaWeights.ts';
import { permutationOf } from '../reference/sampler.ts';

// Expected values: `hash_uniform`, `formula_weight` and `permutation` of goldens/make_goldens.py, run with numpy.

describe('hashUniform', () => {
  it('equals the format exactly', () => {
    expect([...hashUniform('backbone.body.conv1.weight', 4, 1)]).toEqual([
      0.6128545124083757, -0.15168061899021268, 0.15282057831063867, 0.5929134599864483,
    ]);
  });

  it('hashes UTF-8 bytes and takes the low 32 bits of any seed', () => {
    expect([...hashUniform('Zellkörper', 3, -7)]).toEqual([
      0.13561026751995087, 0.8697386463172734, -0.19998846296221018,
    ]);
    expect(hashUniform('x', 70000, 2 ** 32 + 4)[69999]).toBe(0.21576819568872452);
  });
});

describe('formulaWeight', () => {
  // [name, shape, first, last, float64 sum of the float32 values], seed 11, bottleneck blocks
  it.each<[string, number[], number, number, number]>([
    ['backbone.body.conv1.weight', [16, 3, 7, 7], 0.18296317756175995, 0.1487920582294464, -1.853383695917728],
    ['backbone.body.layer1.0.bn2.weight', [16], 0.8834953308105469, 1.0741455554962158, 16.22148859500885],
    ['backbone.body.layer1.0.bn3.weight', [16], 0.2797270715236664, 0.2679082751274109, 3.8537031412124634],
    ['backbone.body.layer2.0.downsample.1.weight', [32], 1.163433313369751, 1.0001773834228516, 32.182009756565094],
    [
      'backbone.body.layer2.0.downsample.0.weight',
      [32, 16, 1, 1],
      0.12977419793605804,
      0.2466098517179489,
      11.66369892260991,
    ],
    ['backbone.body.bn1.bias', [16], -0.018326541408896446, -0.09318805485963821, 0.03354757814668119],
    ['backbone.body.bn1.running_mean', [16], -0.09678623825311661, 0.067220538854599, -0.3678771024569869],
    ['backbone.body.bn1.running_var', [16], 0.9833228588104248, 0.8885461688041687, 16.89307874441147],
    [
      'backbone.fpn.inner_blocks.0.0.weight',
      [32, 16, 1, 1],
      -0.024911267682909966,
      0.19708159565925598,
      -0.9348739213310182,
    ],
    ['backbone.fpn.inner_blocks.0.0.bias', [32], -0.038881491869688034, 0.01795840822160244, 0.09441882860846817],
    ['rpn.head.bbox_pred.weight', [12, 32, 1, 1], 0.023304978385567665, 0.00988930556923151, 0.08046264851145679],
    ['rpn.head.cls_logits.weight', [3, 32, 1, 1], 0.16242066025733948, 0.17399220168590546, 1.5979530078475364],
    [
      'roi_heads.box_predictor.bbox_pred.weight',
      [16, 64],
      -0.06236227601766586,
      -0.016340035945177078,
      3.4043641576645314,
    ],
    [
      'roi_heads.box_predictor.cls_score.weight',
      [4, 64],
      -0.055324967950582504,
      -0.03144347667694092,
      -0.7452759008156136,
    ],
    ['roi_heads.box_head.fc6.weight', [64, 1568], 0.019863475114107132, -0.05154893919825554, 11.226292172079809],
    [
      'roi_heads.mask_predictor.conv5_mask.weight',
      [32, 32, 2, 2],
      0.27889949083328247,
      -0.024139748886227608,
      13.356228958004067,
    ],
  ])('%s', (name, shape, first, last, sum) => {
    const weight = formulaWeight(name, shape, 11, { basicBlocks: false });
    expect(weight.length).toBe(shape.reduce((a, b) => a * b, 1));
    expect(weight[0]).toBe(first);
    expect(weight.at(-1)).toBe(last);
    // numpy adds pairwise, this loop in order: the sums may differ in their last digits.
    expect(Math.abs(weight.reduce((a, b) => a + b, 0) - sum)).toBeLessThan(1e-9);
  });

  it('damps bn2 where a basic block ends with it, and bn3 always', () => {
    const weight = (name: string, basicBlocks: boolean) => formulaWeight(name, [16], 11, { basicBlocks })[0];
    expect(weight('backbone.body.layer1.0.bn2.weight', true)).toBe(0.22087383270263672);
    expect(weight('backbone.body.layer1.0.bn3.weight', true)).toBe(0.2797270715236664);
    expect(weight('backbone.body.layer2.0.downsample.1.weight', true)).toBe(1.163433313369751);
  });
});

describe('goldenSampleOrder', () => {
  const permutation = (kind: GoldenPermutationKind, n: number) => permutationOf(goldenSampleOrder(kind, 3), n);

  it('is the identity, the reverse or the hashed order', () => {
    expect([...permutation('identity', 4)]).toEqual([0, 1, 2, 3]);
    expect([...permutation('reversed', 4)]).toEqual([3, 2, 1, 0]);
    expect([...permutation('hashed', 8)]).toEqual([2, 5, 7, 0, 1, 3, 6, 4]);
    expect([...permutation('hashed', 0)]).toEqual([]);
  });

  it('stays a permutation, and numpy’s, when long', () => {
    const order = permutation('hashed', 30000);
    expect([...order.slice(0, 6)]).toEqual([11294, 13053, 8998, 15148, 18020, 28197]);
    expect([...order.slice(-3)]).toEqual([19867, 5264, 19739]);
    expect(new Set(order).size).toBe(30000);
  });
});
