import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { makeTarget } from '../../src/data/target.ts';
import type { Detections, LoadedImage, Target } from '../../src/data/types.ts';
import { add } from '../../src/kernels/arithmetic.ts';
import type { SampleOrder } from '../../src/kernels/sampler.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { LOSS_NAMES, MaskRCNN } from '../../src/model/maskRcnn.ts';
import type { Device } from '../../src/tensor/device.ts';
import { expectClose } from '../support/compare.ts';
import { testDevice } from '../support/device.ts';
import { uniform } from '../support/random.ts';
import { IN_PARTS, smallestConfig } from '../train/tinyRun.ts';

const identity: SampleOrder = { kind: 'identity' };

/** Noise with one bright rectangle for each box (corners inclusive), and its truth. */
function picture(width: number, height: number, boxes: number[][], seed = 1): { image: LoadedImage; target: Target } {
  const data = uniform(width * height * 3, seed, 0.3, 0.4);
  const masks = new Uint8Array(boxes.length * width * height);
  boxes.forEach(([x1, y1, x2, y2], n) => {
    for (let y = y1; y <= y2; y++)
      for (let x = x1; x <= x2; x++) {
        masks[(n * height + y) * width + x] = 1;
        data.fill(0.9, (y * width + x) * 3, (y * width + x) * 3 + 3);
      }
  });
  return {
    image: { id: `noise-${seed}`, width, height, data },
    target: makeTarget(
      Float32Array.from(boxes.flat()),
      Int32Array.from(boxes, (_, n) => (n % 2) + 1),
      masks,
    ),
  };
}

const scene = picture(64, 48, [
  [4, 6, 20, 18],
  [30, 20, 50, 40],
]);

let device: Device;
const models: MaskRCNN[] = [];

async function build(given: Partial<MaskRCNNConfig> = {}): Promise<MaskRCNN> {
  const model = new MaskRCNN(smallestConfig(given));
  await model.allocate(device, new Random(1));
  models.push(model);
  return model;
}

async function losses(model: MaskRCNN, scenes: (typeof scene)[], order = identity): Promise<[string, number][]> {
  return device.noGrad(() =>
    device.scope(async () => {
      const result = await model.trainingLosses(
        scenes.map(({ image }) => image),
        scenes.map(({ target }) => target),
        { order },
      );
      return Promise.all(
        Object.entries(result).map(async ([name, loss]): Promise<[string, number]> => [name, await loss.item()]),
      );
    }),
  );
}

function expectSound(found: Detections, width: number, height: number, config: MaskRCNNConfig): void {
  const { boxes, labels, scores, masks } = found;
  expect(labels.length).toBeLessThanOrEqual(config.boxDetectionsPerImg);
  expect(boxes).toHaveLength(labels.length * 4);
  expect(scores).toHaveLength(labels.length);
  expect([...scores]).toEqual([...scores].sort((a, b) => b - a));
  for (let i = 0; i < labels.length; i++) {
    expect(scores[i]).toBeGreaterThan(config.boxScoreThresh);
    expect(labels[i]).toBeGreaterThanOrEqual(1);
    expect(labels[i]).toBeLessThan(config.numClasses);
    const [x1, y1, x2, y2] = boxes.subarray(i * 4, i * 4 + 4);
    expect(x1).toBeGreaterThanOrEqual(0);
    expect(y1).toBeGreaterThanOrEqual(0);
    expect(x2).toBeLessThanOrEqual(width);
    expect(y2).toBeLessThanOrEqual(height);
    expect(x2).toBeGreaterThan(x1);
    expect(y2).toBeGreaterThan(y1);
    const mask = masks?.[i];
    if (!mask) continue;
    expect(mask.data).toHaveLength(mask.width * mask.height);
    expect(mask.data.every((value) => value >= 0 && value <= 1)).toBe(true);
  }
}

beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => {
  for (const model of models) model.dispose();
});

describe('trainingLosses', () => {
  it('gives torchvision’s five losses, the same for the same order of sampling', async () => {
    const model = await build();
    const first = await losses(model, [scene]);
    expect(first.map(([name]) => name)).toEqual([...LOSS_NAMES]);
    for (const [name, value] of first) expect(value, name).toBeGreaterThan(0);
    expect(await losses(model, [scene])).toEqual(first);
    // An untrained classifier of 3 classes is near ln 3, an untrained mask and objectness near ln 2.
    const at = Object.fromEntries(first);
    expect(at.loss_objectness).toBeCloseTo(Math.log(2), 1);
    expect(Math.abs(at.loss_classifier - Math.log(3))).toBeLessThan(0.7);
    const reversed = await losses(model, [scene], { kind: 'reversed' });
    expect(reversed).not.toEqual(first);
  });

  it.each([
    ['where masks are computed in parts', IN_PARTS],
    ['behind batch norms', { headNorm: 'batch', boxConvLayers: [8] }],
    ['behind batch norms in parts', { headNorm: 'batch', boxConvLayers: [8], ...IN_PARTS }],
  ] as const)('gives the losses and gradients that the samples alone give, %s', async (_, given) => {
    const model = await build(given as Partial<MaskRCNNConfig>);
    const scenes = [scene, picture(64, 48, [[8, 8, 40, 30]], 3)];
    // Who observes sees the list cut to its positives, and in one part.
    const pass = (observe?: () => void): Promise<Map<string, Float32Array>> =>
      device.scope(async () => {
        const found = await model.trainingLosses(
          scenes.map(({ image }) => image),
          scenes.map(({ target }) => target),
          { order: identity, observe },
        );
        const values = new Map<string, Float32Array>();
        for (const [name, loss] of Object.entries(found)) values.set(name, await loss.floats());
        model.state.parameters.zeroGrad();
        device.backward(Object.values(found));
        for (const name of model.state.parameters.names) {
          const { grad } = model.state.parameters.tensor(name);
          values.set(name, await (grad as NonNullable<typeof grad>).floats());
        }
        return values;
      });
    let positives = 0;
    const exact = await pass((...seen: unknown[]) => {
      if (seen[0] === 'mask.logits') positives = (seen[1] as { shape: number[] }).shape[0];
    });
    expect(positives).toBeGreaterThan(0);
    expect(positives).toBeLessThan(model.config.boxBatchSizePerImage * model.config.boxPositiveFraction * 2);
    for (const [name, values] of await pass()) expectClose(values, exact.get(name) as Float32Array, 1e-5, name);
  });

  it('gives a mask loss of 0 to a large mask head that is to see no positives', async () => {
    const model = await build({ boxPositiveFraction: 0, maskLayers: [72] });
    const found = Object.fromEntries(await losses(model, [scene]));
    expect(found.loss_mask).toBe(0);
    expect(found.loss_box_reg).toBe(0);
  });

  it('gives four losses without masks', async () => {
    const model = await build({ masks: false });
    expect((await losses(model, [scene])).map(([name]) => name)).toEqual(LOSS_NAMES.slice(0, 4));
    const [found] = await model.predict([scene.image]);
    expect(found.masks).toBeUndefined();
    expectSound(found, 64, 48, model.config);
  });

  it('takes images of different size and images without truth in one batch', async () => {
    const model = await build();
    const empty = picture(40, 70, [], 2);
    for (const [name, value] of await losses(model, [scene, empty])) expect(Number.isFinite(value), name).toBe(true);
  });

  it('resizes inside the model where the configuration says so', async () => {
    const model = await build({ minSize: 96, maxSize: 200 });
    const sizes: number[][] = [];
    await device.noGrad(() =>
      device.scope(() =>
        model.trainingLosses([scene.image], [scene.target], {
          order: identity,
          observe: (stage, value) => {
            if (stage === 'transform.sizes' && 'data' in value && typeof value.data !== 'function')
              sizes.push([...value.data]);
          },
        }),
      ),
    );
    expect(sizes).toEqual([[96, 128]]);
  });
});

describe('predict', () => {
  it('gives sound detections, best first, the same in every run', async () => {
    const model = await build({ boxScoreThresh: 0.01, boxDetectionsPerImg: 7 });
    const other = picture(50, 60, [[5, 5, 30, 30]], 3);
    const found = await model.predict([scene.image, other.image]);
    expect(found).toHaveLength(2);
    expect(found[0].labels).toHaveLength(7);
    expectSound(found[0], 64, 48, model.config);
    expectSound(found[1], 50, 60, model.config);
    expect(found[0].masks).toHaveLength(7);
    expect(await model.predict([scene.image, other.image])).toEqual(found);
  });

  it('reads the detections back at once, and then their masks', async () => {
    const other = picture(50, 60, [[5, 5, 30, 30]], 3);
    for (const [masks, expected] of [
      [false, 1],
      [true, 3],
    ] as const) {
      const model = await build({ masks, boxScoreThresh: 0.01 });
      const before = device.gpu.counters().readbacks;
      await model.predict([scene.image, other.image]);
      expect(device.gpu.counters().readbacks - before).toBe(expected);
    }
  });

  it('predicts the masks of many detections in parts, and the same ones', async () => {
    const model = await build({
      ...{ rpnNmsThresh: 0.99, rpnPostNmsTopNTest: 100, boxNmsThresh: 0.99 },
      ...{ boxScoreThresh: 0.01, boxDetectionsPerImg: 90 },
    });
    const images = [scene.image, picture(64, 48, [[8, 8, 40, 30]], 3).image];
    const found = await model.predict(images);
    // Who observes sees all at once.
    const whole = await model.predict(images, { observe: () => undefined });
    expect(found.reduce((sum, { labels }) => sum + labels.length, 0)).toBeGreaterThan(128);
    found.forEach(({ boxes, labels, masks }, image) => {
      const expected = whole[image];
      expect(labels).toEqual(expected.labels);
      expectClose(boxes, expected.boxes, 1e-5, 'boxes');
      expect(masks).toHaveLength(labels.length);
      for (const [n, { data, ...place }] of (masks ?? []).entries()) {
        const { data: wanted, ...where } = (expected.masks ?? [])[n];
        expect(place).toEqual(where);
        expectClose(data, wanted, 1e-5, 'mask');
      }
    });
  });

  it('gives boxes and masks at the size asked for', async () => {
    const model = await build({ boxScoreThresh: 0.01 });
    const [own] = await model.predict([scene.image]);
    const [large] = await model.predict([scene.image], { outputSizes: [[144, 128]] });
    expect(large.labels).toEqual(own.labels);
    expect(large.scores).toEqual(own.scores);
    expect(large.boxes).toEqual(own.boxes.map((value, i) => Math.fround(value * (i % 2 === 0 ? 2 : 3))));
    expectSound(large, 128, 144, model.config);
  });

  it('gives nothing where no score passes', async () => {
    const model = await build({ boxScoreThresh: 1 });
    const [found] = await model.predict([scene.image]);
    expect(found.labels).toHaveLength(0);
    expect(found.boxes).toHaveLength(0);
    expect(found.masks).toEqual([]);
  });

  it('does not depend on the other images of its batch, up to padding', async () => {
    const model = await build({ boxScoreThresh: 0.01 });
    const twin = picture(64, 48, [[10, 10, 40, 30]], 4);
    const [alone] = await model.predict([twin.image]);
    const [, together] = await model.predict([scene.image, twin.image]);
    expect(together.labels).toEqual(alone.labels);
    expect(together.boxes).toEqual(alone.boxes);
  });
});

describe('freezeBackbone', () => {
  /** Loss, gradients by name, the bytes in use before the backward pass, and the kernels of its part in the backbone's body. */
  async function step(trainableLayers: number) {
    const model = new MaskRCNN(smallestConfig());
    model.freezeBackbone(trainableLayers);
    await model.allocate(device, new Random(1));
    models.push(model);
    // The pool lends larger buffers where it has them free, which would count.
    await device.gpu.trim();
    return device.scope(async () => {
      const before = device.gpu.counters().inUse;
      const result = await model.trainingLosses([scene.image], [scene.target], { order: identity });
      const saved = device.gpu.counters().inUse - before;
      const total = Object.values(result).reduce((sum, loss) => add(sum, loss));
      const kernels = new Map<string, number>();
      const original = device.gpu.dispatch;
      const dispatch = vi.spyOn(device.gpu, 'dispatch').mockImplementation((...given) => {
        kernels.set(device.gpu.label, (kernels.get(device.gpu.label) ?? 0) + 1);
        original.apply(device.gpu, given);
      });
      device.backward(total);
      dispatch.mockRestore();
      const gradients = new Map<string, Float32Array>();
      for (const name of model.state.parameters.names) gradients.set(name, await model.state.readGradient(name));
      return { loss: await total.item(), gradients, saved, body: kernels.get('backbone.body, backward') ?? 0 };
    });
  }

  it('leaves the gradients of what is trained as they are, and saves less', async () => {
    const all = await step(5);
    const some = await step(2);
    const none = await step(0);
    expect([some.loss, none.loss]).toEqual([all.loss, all.loss]);
    const body = [...all.gradients.keys()].filter((name) => name.startsWith('backbone.body.'));
    expect(body.some((name) => name.includes('.conv1.') && name.startsWith('backbone.body.conv1'))).toBe(true);
    const kept = [...some.gradients.keys()].filter((name) => name.startsWith('backbone.body.'));
    expect(kept).toEqual(body.filter((name) => /layer[34]/.test(name)));
    expect([...none.gradients.keys()]).toEqual([...all.gradients.keys()].filter((name) => !body.includes(name)));
    for (const [name, gradient] of some.gradients) expect(gradient, name).toEqual(all.gradients.get(name));
    expect(some.saved).toBeLessThan(all.saved);
    expect(none.saved).toBeLessThan(some.saved);
    // Kernels of the body's backward pass: none for what is frozen.
    expect(some.body).toBeGreaterThan(0);
    expect(some.body).toBeLessThan(all.body);
    expect(none.body).toBe(0);
  });

  it('refuses other numbers, and what has been allocated', async () => {
    expect(() => new MaskRCNN(smallestConfig()).freezeBackbone(6)).toThrow('0 to 5');
    const model = await build();
    expect(() => model.freezeBackbone(1)).toThrow('allocated');
  });
});

it('gives all its memory back', async () => {
  const before = device.gpu.counters().inUse;
  const model = new MaskRCNN(smallestConfig());
  await model.allocate(device, new Random(1));
  await model.predict([scene.image]);
  expect(device.gpu.counters().inUse).toBeGreaterThan(before);
  model.dispose();
  expect(device.gpu.counters().inUse).toBe(before);
  const frozen = new MaskRCNN(smallestConfig({ norm: 'frozen' }));
  await frozen.allocate(device, new Random(1));
  await frozen.predict([scene.image]);
  frozen.dispose();
  expect(device.gpu.counters().inUse).toBe(before);
});
