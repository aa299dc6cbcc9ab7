import { maskBox } from '../src/data/dataset.ts';
import { Random } from '../src/data/random.ts';
import { syntheticImage } from '../src/data/synthetic.ts';
import { syntheticCellTypes } from '../src/data/syntheticShapes.ts';
import { makeTarget } from '../src/data/target.ts';
import type { Detections, Sample } from '../src/data/types.ts';
import { MaskRCNN } from '../src/model/maskRcnn.ts';
import { type PresetName, presetConfig } from '../src/model/presets.ts';
import type { Device } from '../src/tensor/device.ts';
import { trainStep, validationLosses } from '../src/train/step.ts';
import { type BenchGroup, caseName, type Verdict } from './cases.ts';
import { relativeError } from './check.ts';
import type { Comparison, Values } from './comparison.ts';
import { exportedModel, formulaSource } from './exportedModel.ts';

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

export const WHOLE_STEPS = 'Whole steps';

interface Setting {
  preset: Extract<PresetName, 'tiny' | 'resnet50'>;
  images: number;
  size: { width: number; height: number };
}

/** torchvision's default, so that its exported model does the same work. */
const DETECTIONS = 100;

function describe({ preset, images, size }: Setting): string {
  return `${preset}, ${images} ${images === 1 ? 'image' : 'images'} ${size.width}×${size.height}`;
}

/** `tiny` as training begins; `resnet50` with weights by formula, on images of their own size. */
async function modelOf(device: Device, { preset, size }: Setting): Promise<MaskRCNN> {
  const classes = { numClasses: syntheticCellTypes.length + 1, inputSize: size };
  if (preset === 'tiny') {
    const model = new MaskRCNN(presetConfig(preset, classes));
    await model.allocate(device, new Random(9));
    return model;
  }
  const { width, height } = size;
  const overrides = {
    minSize: Math.min(width, height),
    maxSize: Math.max(width, height),
    boxDetectionsPerImg: DETECTIONS,
  };
  const model = new MaskRCNN(presetConfig(preset, { ...classes, overrides }));
  await model.allocate(device, new Random(9), formulaSource(model));
  return model;
}

const wrong: Verdict = { error: Number.POSITIVE_INFINITY, tolerance: 0 };

function trainingGroup(setting: Setting): BenchGroup {
  const { images, size } = setting;
  const group = `training step of ${describe(setting)}`;
  const variant = 'tape';
  return {
    table: WHOLE_STEPS,
    name: group,
    variants: [variant],
    async open(device) {
      const model = await modelOf(device, setting);
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

/** Share of an engine's detections that this program has no like of: same class, score within 1e-3, corners within a pixel. */
function unmatched(ours: Detections, theirs: Readonly<Record<string, Values>>): number {
  const [boxes, labels, scores] = [theirs.boxes?.data ?? [], theirs.labels?.data ?? [], theirs.scores?.data ?? []];
  if (scores.length === 0 || scores.length !== ours.scores.length) return Number.POSITIVE_INFINITY;
  const free = new Set(ours.scores.keys());
  for (let i = 0; i < scores.length; i++) {
    for (const k of free) {
      const corners = [0, 1, 2, 3].every((c) => Math.abs(ours.boxes[k * 4 + c] - boxes[i * 4 + c]) < 1);
      if (corners && ours.labels[k] === labels[i] && Math.abs(ours.scores[k] - scores[i]) < 1e-3) {
        free.delete(k);
        break;
      }
    }
  }
  return free.size / scores.length;
}

/** torchvision's exported model on the same image with the same weights. */
function modelComparison(python: string, model: MaskRCNN, image: Sample['image'], ours: () => Detections): Comparison {
  const { width, height, data } = image;
  const planes = Float32Array.from(data, (_, i) => data[(i % (width * height)) * 3 + Math.floor(i / (width * height))]);
  const what = { height, width, classes: model.config.numClasses, detections: DETECTIONS };
  return {
    work: async () => ({ op: 'onnx', file: await exportedModel(python, model, what), height, width }),
    inputs: { x: { shape: [3, height, width], data: planes } },
    // Suppression decides a tie of rounding one way or the other, and what it lets pass takes another's place.
    check: (found) => ({ error: unmatched(ours(), found), tolerance: 0.1 }),
    without: ['onnxruntime-web', 'tfjs-webgpu', 'jax-js', 'tinygrad', 'torch'],
  };
}

function inferenceGroup(setting: Setting, python: string): BenchGroup {
  const { images, size, preset } = setting;
  const group = `inference of ${describe(setting)}`;
  const variant = 'predict';
  const compared = preset === 'resnet50' && images === 1;
  return {
    table: WHOLE_STEPS,
    name: group,
    variants: [variant],
    ...(compared && {
      goal: {
        what: `${group} against torchvision's exported model in onnxruntime`,
        against: 'onnxruntime-node',
        atLeast: 3,
      },
    }),
    async open(device) {
      const model = await modelOf(device, setting);
      const batch = syntheticBatch(images, size).map(({ image }) => image);
      let found: Detections[] = [];
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
              found = first;
              if (!first.every((detections) => plausible(detections, size))) return wrong;
              const numbers = (all: Detections[]): number[] =>
                all.flatMap(({ boxes, scores }) => [...scores, ...boxes]);
              return { error: relativeError(numbers(second), numbers(first)), tolerance: 0 };
            },
          },
        ],
        comparison: compared ? modelComparison(python, model, batch[0], () => found[0]) : undefined,
        close: () => model.dispose(),
      };
    },
  };
}

/** @param python where torchvision's model may be exported */
export function stepGroups(python: string): BenchGroup[] {
  const size = { width: 352, height: 256 };
  const tiny = { preset: 'tiny', images: 2, size } as const;
  const resnet50 = { preset: 'resnet50', images: 1, size } as const;
  return [trainingGroup(tiny), inferenceGroup(tiny, python), trainingGroup(resnet50), inferenceGroup(resnet50, python)];
}
