import { maskBox } from '../src/data/dataset.ts';
import { Random } from '../src/data/random.ts';
import { syntheticImage } from '../src/data/synthetic.ts';
import { syntheticCellTypes } from '../src/data/syntheticShapes.ts';
import { makeTarget } from '../src/data/target.ts';
import type { Detections, Sample } from '../src/data/types.ts';
import { MaskRCNN } from '../src/model/maskRcnn.ts';
import { presetConfig } from '../src/model/presets.ts';
import type { Device } from '../src/tensor/device.ts';
import { trainStep, validationLosses } from '../src/train/step.ts';
import { type BenchGroup, caseName, type Size, type Verdict } from './cases.ts';
import { relativeError } from './check.ts';

/** Cells of the synthetic data set as training would load them. */
export function syntheticBatch(images: number, size: { width: number; height: number }): Sample[] {
  return Array.from({ length: images }, (_, index) => {
    const { id, width, height, pixels, cells } = syntheticImage(index, size);
    const found = cells.flatMap(({ type, mask }) => {
      const box = maskBox(mask, width, height);
      return box ? [{ mask, box, label: syntheticCellTypes.indexOf(type) + 1 }] : [];
    });
    const masks = new Uint8Array(found.length * width * height);
    for (const [i, { mask }] of found.entries()) masks.set(mask, i * width * height);
    return {
      image: {
        id,
        width,
        height,
        data: Float32Array.from({ length: pixels.length * 3 }, (__, i) => pixels[Math.floor(i / 3)] / 255),
      },
      target: makeTarget(
        Float32Array.from(found.flatMap(({ box }) => box)),
        Int32Array.from(found.map(({ label }) => label)),
        masks,
      ),
    };
  });
}

async function tinyModel(device: Device, inputSize: { width: number; height: number }) {
  const model = new MaskRCNN(presetConfig('tiny', { numClasses: syntheticCellTypes.length + 1, inputSize }));
  await model.allocate(device, new Random(9));
  return model;
}

const wrong: Verdict = { error: Number.POSITIVE_INFINITY, tolerance: 0 };

function trainingGroup(images: number, size: { width: number; height: number }): BenchGroup {
  const group = `training step of tiny, ${images} images ${size.width}×${size.height}`;
  const variant = 'tape';
  return {
    table: 'Whole steps',
    name: group,
    variants: [variant],
    async open(device) {
      const model = await tinyModel(device, size);
      const batch = syntheticBatch(images, size);
      const random = new Random(10);
      // So small a rate that the model, and with it the work of a step, stays what it is.
      const options = { lr: 1e-5, momentum: 0.9, weightDecay: 1e-4, clipNorm: 10 };
      const run = async (): Promise<void> => {
        const { values } = await trainStep(model, batch, { kind: 'random', seed: random.uint32() }, options);
        values.dispose();
      };
      const losses = async (): Promise<Float32Array> => {
        const { values } = await validationLosses(model, batch, { kind: 'random', seed: 11 });
        return values.floats();
      };
      return {
        cases: [
          {
            group,
            variant,
            name: caseName(group, variant),
            run,
            /** After a step, every loss is a number, and the same weights give the same ones again to the last bit. */
            async check() {
              await run();
              const [first, second] = [await losses(), await losses()];
              if (first.some((loss) => !Number.isFinite(loss) || loss < 0)) return wrong;
              return { error: relativeError(second, first), tolerance: 0 };
            },
          },
        ],
        close: () => model.dispose(),
      };
    },
  };
}

function plausible(
  { boxes, scores, labels, masks }: Detections,
  { width, height }: { width: number; height: number },
): boolean {
  const inside = boxes.every((at, i) => at >= 0 && at <= (i % 2 === 0 ? width : height));
  const ordered = scores.every((score, i) => score > 0 && score <= 1 && (i === 0 || score <= scores[i - 1]));
  const classes = labels.every((label) => label >= 1 && label <= syntheticCellTypes.length);
  const shades = (masks ?? []).every(({ data }) => data.every((value) => value >= 0 && value <= 1));
  return inside && ordered && classes && shades;
}

function inferenceGroup(images: number, size: { width: number; height: number }): BenchGroup {
  const group = `inference of tiny, ${images} images ${size.width}×${size.height}`;
  const variant = 'predict';
  return {
    table: 'Whole steps',
    name: group,
    variants: [variant],
    async open(device) {
      const model = await tinyModel(device, size);
      const batch = syntheticBatch(images, size).map(({ image }) => image);
      return {
        cases: [
          {
            group,
            variant,
            name: caseName(group, variant),
            run: async () => void (await model.predict(batch)),
            /** Detections lie in the image, best first, and a second run has the same to the last bit. */
            async check() {
              const [first, second] = [await model.predict(batch), await model.predict(batch)];
              if (!first.every((detections) => plausible(detections, size))) return wrong;
              const numbers = (all: Detections[]): number[] =>
                all.flatMap(({ boxes, scores }) => [...scores, ...boxes]);
              return { error: relativeError(numbers(second), numbers(first)), tolerance: 0 };
            },
          },
        ],
        close: () => model.dispose(),
      };
    },
  };
}

export function stepGroups(size: Size): BenchGroup[] {
  const pixels = size === 'full' ? { width: 352, height: 260 } : { width: 176, height: 130 };
  return [trainingGroup(2, pixels), inferenceGroup(2, pixels)];
}
