/** What Node and the browser both compute, on their own device: the same code, the same inputs, plain JSON out. */
import { Random } from '../../src/data/random.ts';
import { makeTarget } from '../../src/data/target.ts';
import type { LoadedImage, MaskCrop, Sample } from '../../src/data/types.ts';
import type { MaskRCNNConfig } from '../../src/model/config.ts';
import { formulaWeight, goldenSampleOrder, hashUniform } from '../../src/model/formulaWeights.ts';
import { MaskRCNN } from '../../src/model/maskRcnn.ts';
import { presetConfig } from '../../src/model/presets.ts';
import type { StateSource } from '../../src/model/stateDict.ts';
import type { Device } from '../../src/tensor/device.ts';
import { trainStep } from '../../src/train/step.ts';
import { checkDevice, type SelfTest } from '../../src/verify/selfTest.ts';

const SEED = 11;

export interface ScenarioResult {
  selfTest: SelfTest[];
  losses: Record<string, number>;
  /** By name: what one step of SGD added to each trainable entry, in torch's layout. */
  updates: Record<string, number[]>;
  detections: {
    boxes: number[];
    labels: number[];
    scores: number[];
    masks: (Omit<MaskCrop, 'data'> & { data: number[] })[];
  }[];
}

/**
 * A small model on small anchors. Low thresholds, so that weights which never saw an image detect something, and so many samples that masks
 * are computed in parts of their list.
 */
export function scenarioConfig(): MaskRCNNConfig {
  return {
    ...presetConfig('tiny', { numClasses: 3, inputSize: { width: 80, height: 64 } }),
    rpnPreNmsTopNTrain: 100,
    rpnPreNmsTopNTest: 100,
    rpnPostNmsTopNTrain: 90,
    rpnPostNmsTopNTest: 40,
    boxBatchSizePerImage: 300,
    boxDetectionsPerImg: 12,
    boxScoreThresh: 0.05,
  };
}

/** The golden cases' published weights, a function of name and shape alone. */
export function scenarioWeights(model: MaskRCNN): StateSource {
  return (name) => {
    const entry = model.state.entries.get(name);
    if (!entry) return undefined;
    return { shape: entry.shape, data: formulaWeight(name, entry.shape, SEED, { basicBlocks: true }) };
  };
}

interface Disk {
  x: number;
  y: number;
  radius: number;
  label: number;
}

/** Bright disks on a noisy ground. Sums, products and comparisons alone, so that every engine draws the same bits. */
function sample(id: string, width: number, height: number, disks: readonly Disk[]): Sample {
  const noise = hashUniform(`image.${id}`, width * height * 3, SEED);
  const data = Float32Array.from(noise, (u) => 0.45 + 0.1 * u);
  const masks = new Uint8Array(disks.length * width * height);
  const boxes: number[] = [];
  for (const [index, { x, y, radius, label }] of disks.entries()) {
    boxes.push(x - radius, y - radius, x + radius, y + radius);
    for (let row = y - radius; row <= y + radius; row++) {
      for (let column = x - radius; column <= x + radius; column++) {
        if ((column - x) ** 2 + (row - y) ** 2 > radius ** 2) continue;
        masks[(index * height + row) * width + column] = 1;
        for (let c = 0; c < 3; c++) data[(row * width + column) * 3 + c] += 0.1 * label;
      }
    }
  }
  const image: LoadedImage = { id, width, height, data };
  const target = makeTarget(
    Float32Array.from(boxes),
    Int32Array.from(disks, ({ label }) => label),
    masks,
  );
  return { image, target };
}

/** Two images of different sizes, the second with cells of both classes. */
export function scenarioBatch(): Sample[] {
  return [
    sample('a', 80, 64, [
      { x: 20, y: 20, radius: 9, label: 1 },
      { x: 55, y: 40, radius: 14, label: 1 },
    ]),
    sample('b', 72, 60, [
      { x: 16, y: 40, radius: 7, label: 2 },
      { x: 45, y: 22, radius: 12, label: 1 },
      { x: 60, y: 50, radius: 6, label: 2 },
    ]),
  ];
}

/** Self-test, detections, then one training step: losses, and what SGD adds to every parameter. */
export async function runScenario(device: Device): Promise<ScenarioResult> {
  const selfTest = await checkDevice(device);
  const model = new MaskRCNN(scenarioConfig());
  const initial = scenarioWeights(model);
  const batch = scenarioBatch();
  try {
    await model.allocate(device, new Random(SEED), initial);
    const found = await model.predict(batch.map(({ image }) => image));
    const options = { lr: 0.05, momentum: 0.9, weightDecay: 1e-3, clipNorm: 5 };
    const { names, values } = await trainStep(model, batch, goldenSampleOrder('hashed', SEED), options);
    const read = await values.floats();
    values.dispose();
    const updates: ScenarioResult['updates'] = {};
    for (const { name, trainable, shape } of model.state.entries.values()) {
      if (!trainable) continue;
      const before = formulaWeight(name, shape, SEED, { basicBlocks: true });
      const after = await model.state.read(name);
      updates[name] = Array.from(after, (value, i) => value - before[i]);
    }
    return {
      selfTest,
      losses: Object.fromEntries(names.map((name, i) => [name, read[i]])),
      updates,
      detections: found.map(({ boxes, labels, scores, masks = [] }) => ({
        boxes: [...boxes],
        labels: [...labels],
        scores: [...scores],
        masks: masks.map((mask) => ({ ...mask, data: [...mask.data] })),
      })),
    };
  } finally {
    model.dispose();
  }
}
