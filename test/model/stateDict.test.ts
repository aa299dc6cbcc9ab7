import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/cli/errors.ts';
import { Random } from '../../src/data/random.ts';
import { parseConfig } from '../../src/model/config.ts';
import { constant } from '../../src/model/initializers.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { presetConfig } from '../../src/model/presets.ts';
import { Entry, StateDict } from '../../src/model/stateDict.ts';
import { stateSource } from '../../src/train/checkpoint.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';
import { smallestConfig } from '../train/tinyRun.ts';

const CLASSES = 91;

/** The state_dict of torchvision's `maskrcnn_resnet50_fpn(num_classes=91)`, written down from its modules. */
function torchvisionState(): Map<string, number[]> {
  const state = new Map<string, number[]>();
  const conv = (name: string, out: number, inside: number, kernel: number): void => {
    state.set(`${name}.weight`, [out, inside, kernel, kernel]);
  };
  const biased = (name: string, shape: number[], bias = shape[0]): void => {
    state.set(`${name}.weight`, shape);
    state.set(`${name}.bias`, [bias]);
  };
  const norm = (name: string, channels: number): void => {
    for (const leaf of ['weight', 'bias', 'running_mean', 'running_var']) state.set(`${name}.${leaf}`, [channels]);
  };
  const body = 'backbone.body';
  conv(`${body}.conv1`, 64, 3, 7);
  norm(`${body}.bn1`, 64);
  let channels = 64;
  [3, 4, 6, 3].forEach((depth, layer) => {
    const planes = 64 * 2 ** layer;
    for (let block = 0; block < depth; block++) {
      const name = `${body}.layer${layer + 1}.${block}`;
      conv(`${name}.conv1`, planes, channels, 1);
      conv(`${name}.conv2`, planes, planes, 3);
      conv(`${name}.conv3`, planes * 4, planes, 1);
      norm(`${name}.bn1`, planes);
      norm(`${name}.bn2`, planes);
      norm(`${name}.bn3`, planes * 4);
      if (block === 0) {
        conv(`${name}.downsample.0`, planes * 4, channels, 1);
        norm(`${name}.downsample.1`, planes * 4);
      }
      channels = planes * 4;
    }
  });
  [256, 512, 1024, 2048].forEach((inside, level) => {
    biased(`backbone.fpn.inner_blocks.${level}.0`, [256, inside, 1, 1]);
    biased(`backbone.fpn.layer_blocks.${level}.0`, [256, 256, 3, 3]);
  });
  biased('rpn.head.conv.0.0', [256, 256, 3, 3]);
  biased('rpn.head.cls_logits', [3, 256, 1, 1]);
  biased('rpn.head.bbox_pred', [12, 256, 1, 1]);
  biased('roi_heads.box_head.fc6', [1024, 256 * 7 * 7]);
  biased('roi_heads.box_head.fc7', [1024, 1024]);
  biased('roi_heads.box_predictor.cls_score', [CLASSES, 1024]);
  biased('roi_heads.box_predictor.bbox_pred', [CLASSES * 4, 1024]);
  for (let i = 0; i < 4; i++) biased(`roi_heads.mask_head.${i}.0`, [256, 256, 3, 3]);
  biased('roi_heads.mask_predictor.conv5_mask', [256, 256, 2, 2]);
  biased('roi_heads.mask_predictor.mask_fcn_logits', [CLASSES, 256, 1, 1]);
  return state;
}

const resnet50 = presetConfig('resnet50', { numClasses: CLASSES, inputSize: { width: 704, height: 520 } });

describe('the state_dict of the resnet50 preset', () => {
  it('has torchvision’s names and shapes', () => {
    const { state } = new MaskRCNN(resnet50);
    const own = new Map([...state.entries.values()].map(({ name, shape }) => [name, [...shape]]));
    const sorted = (map: Map<string, number[]>): [string, number[]][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    expect(sorted(own)).toEqual(sorted(torchvisionState()));
  });

  it('has the 44,401,393 parameters that torchvision documents, in 307 entries', () => {
    const { state } = new MaskRCNN(resnet50);
    // 53 convolutions, each with a frozen norm of 4 buffers; then 4 + 4 of the FPN, 3 of the RPN, 4 of the box branch and 6 of
    // the mask branch with weight and bias.
    expect(state.entries.size).toBe(53 * 5 + (8 + 3 + 4 + 6) * 2);
    expect(state.parameterCount()).toBe(44_401_393);
    // Without the mask branch: maskrcnn − fasterrcnn_resnet50_fpn (41,755,286) as documented.
    const boxOnly = new MaskRCNN(parseConfig({ ...resnet50, masks: false }, 'x'));
    expect(boxOnly.state.parameterCount()).toBe(41_755_286);
  });

  it('trains the norms of a model with batch norms, and holds frozen ones constant', () => {
    const trainable = (norm: 'batch' | 'frozen'): string[] => {
      const { state } = new MaskRCNN(smallestConfig({ norm }));
      const entries = [...state.entries.values()].filter(({ name }) => name.startsWith('backbone.body.bn1'));
      return entries.filter((entry) => entry.trainable).map(({ name }) => name.replace('backbone.body.', ''));
    };
    expect(trainable('batch')).toEqual(['bn1.weight', 'bn1.bias']);
    expect(trainable('frozen')).toEqual([]);
  });
});

describe('StateDict', () => {
  const values = async (model: MaskRCNN): Promise<Map<string, Float32Array>> => {
    const read = new Map<string, Float32Array>();
    for await (const { name, data } of model.state.values()) read.set(name, data);
    return read;
  };

  it('draws initial values from the seed alone, as torchvision distributes them', async () => {
    const device = await testDevice();
    const build = async (seed: number): Promise<Map<string, Float32Array>> => {
      const model = new MaskRCNN(smallestConfig());
      await model.allocate(device, new Random(seed));
      const read = await values(model);
      model.dispose();
      return read;
    };
    const first = await build(1);
    expect(await build(1)).toEqual(first);
    expect((await build(2)).get('backbone.body.conv1.weight')).not.toEqual(first.get('backbone.body.conv1.weight'));
    const get = (name: string): Float32Array => {
      const data = first.get(name);
      if (!data) throw new Error(`No ${name}.`);
      return data;
    };
    const deviation = (data: Float32Array): number =>
      Math.sqrt(data.reduce((sum, value) => sum + value ** 2, 0) / data.length);
    // Kaiming normal by fan out: √(2 / (8 · 49)); RPN: normal of .01; biases of RPN and FPN: 0.
    expect(deviation(get('backbone.body.conv1.weight')) / Math.sqrt(2 / (8 * 49))).toBeCloseTo(1, 0.9);
    expect(deviation(get('rpn.head.conv.0.0.weight')) / 0.01).toBeCloseTo(1, 0.9);
    for (const name of ['rpn.head.conv.0.0.bias', 'rpn.head.cls_logits.bias', 'backbone.fpn.inner_blocks.0.0.bias']) {
      expect(
        get(name).every((value) => value === 0),
        name,
      ).toBe(true);
    }
    // torch's Linear: within ± 1 / √(in).
    const bound = 1 / Math.sqrt(8 * 49);
    const fc6 = get('roi_heads.box_head.fc6.weight').map(Math.abs);
    expect(Math.max(...fc6)).toBeLessThanOrEqual(bound);
    expect(Math.max(...fc6)).toBeGreaterThan(0.98 * bound);
    expect(new Set(get('backbone.body.bn1.weight'))).toEqual(new Set([1]));
    expect(new Set(get('backbone.body.bn1.running_var'))).toEqual(new Set([1]));
    expect(new Set(get('backbone.body.bn1.running_mean'))).toEqual(new Set([0]));
  });

  it('gives back in torch’s layout what was put in, whether at the start or later', async () => {
    const device = await testDevice();
    const model = new MaskRCNN(smallestConfig({ norm: 'frozen' }));
    const given = new Map(
      [...model.state.entries.values()].map(({ name, shape }, index) => {
        const data = uniform(
          shape.reduce((product, side) => product * side, 1),
          index + 1,
          0.5,
          1,
        );
        return [name, { shape, data }] as const;
      }),
    );
    const expected = new Map([...given].map(([name, { data }]) => [name, data]));
    await model.allocate(device, new Random(1), (name) => given.get(name));
    expect(await values(model)).toEqual(expected);
    const other = new MaskRCNN(smallestConfig({ norm: 'frozen' }));
    await other.allocate(device, new Random(3));
    await other.state.load((name) => given.get(name));
    expect(await values(other)).toEqual(expected);
    const image = { id: 'x', width: 32, height: 32, data: uniform(32 * 32 * 3, 9, 0, 1) };
    // What is derived from the weights (folded norms) follows them.
    expect(await other.predict([image])).toEqual(await model.predict([image]));
    model.dispose();
    other.dispose();
  });

  it('names a parameter that is missing or of another shape', async () => {
    const device = await testDevice();
    const model = new MaskRCNN(smallestConfig());
    await model.allocate(device, new Random(1));
    await expect(model.state.load(() => undefined)).rejects.toThrow(
      'The weights have no parameter backbone.body.conv1.weight of shape [8,3,7,7].',
    );
    const wrong = { shape: [1], data: new Float32Array(1) };
    await expect(model.state.load(() => wrong)).rejects.toThrow(
      "The weights' parameter backbone.body.conv1.weight has shape [1], but this model's is [8,3,7,7].",
    );
    model.dispose();
  });

  it('refuses a name declared twice, and use before it is allocated', () => {
    const state = new StateDict();
    const entry = state.declare(new Entry('a', [2], { init: constant(0) }));
    expect(() => state.declare(new Entry('a', [2], { init: constant(0) }))).toThrow('a is declared twice');
    expect(() => entry.tensor).toThrow('a was used before the model was allocated');
  });
});

describe('stateSource', () => {
  const model = new MaskRCNN(smallestConfig());
  const file = (change: (shapes: Map<string, readonly number[]>) => void) => {
    const shapes = new Map<string, readonly number[]>(
      [...model.state.entries.values()].map(({ name, shape }) => [name, shape]),
    );
    change(shapes);
    const tensors = new Map(
      [...shapes].map(([name, shape]) => [
        name,
        { name, dtype: 'F32' as const, shape: [...shape], offset: 0, length: 0 },
      ]),
    );
    const unread = (): never => {
      throw new Error('Nothing may be read before all names and shapes hold.');
    };
    return { path: 'w.safetensors', tensors, readFloat32: unread };
  };

  it('lists all that differs, with both shapes', () => {
    const changed = file((shapes) => {
      shapes.set('roi_heads.box_predictor.cls_score.weight', [4, 16]);
      shapes.delete('rpn.head.cls_logits.bias');
      for (const leaf of ['weight', 'bias']) shapes.delete(`backbone.body.bn1.${leaf}`);
      shapes.set('backbone.body.layer1.1.conv1.weight', [8, 8, 3, 3]);
    });
    expect(() => stateSource(changed, model.state)).toThrow(
      new UserError(
        'w.safetensors does not fit the model: ' +
          'it lacks backbone.body.bn1.{weight, bias} [8], rpn.head.cls_logits.bias [3]; ' +
          'it has roi_heads.box_predictor.cls_score.weight [4,16] instead of [3,16]; ' +
          'the model does not have its backbone.body.layer1.1.conv1.weight [8,8,3,3].',
      ),
    );
  });

  it('takes torch’s counters of batches for what they are', () => {
    const counted = file((shapes) => shapes.set('backbone.body.bn1.num_batches_tracked', []));
    expect(() => stateSource(counted, model.state)).not.toThrow();
  });
});
