import type { EpochRow, RunReport } from '../../src/report/runReport.ts';

/** Text that would break a page that does not escape it. */
export const HOSTILE = `<script>alert("1")</script> & 'x'`;

export const LOSSES = ['loss_objectness', 'loss_rpn_box_reg', 'loss_classifier', 'loss_box_reg', 'loss_mask'];

function losses(from: number, names: readonly string[]): Record<string, number> {
  const parts = Object.fromEntries(names.map((name, i) => [name, from + i / 100]));
  return { ...parts, total: Object.values(parts).reduce((sum, value) => sum + value, 0) };
}

/** Epochs of a run as its metrics have them. */
export function sampleEpochs(count: number, names: readonly string[] = LOSSES): EpochRow[] {
  return Array.from({ length: count }, (_, i) => ({
    epoch: i + 1,
    steps: 20,
    lr: 0.02,
    secondsPerStep: 0.4 + i / 100,
    train: losses(0.5 / (i + 1), names),
    validation: losses(0.6 / (i + 1), names),
    scores: { iouMap: i / 20, boxMap30: i / 15, maskAP50: i / 10, boxAP50: i / 12 },
  }));
}

/** A finished run with everything but pictures; every name in it is hostile. */
export function sampleReport(given: Partial<RunReport> = {}): RunReport {
  return {
    name: `run ${HOSTILE}`,
    config: {
      data: `folder ${HOSTILE}`,
      preset: 'tiny',
      lr: 0.02,
      seed: 2021,
      stepLr: null,
      finalDecay: { share: 0.15, factor: 0.1 },
    },
    plannedEpochs: 6,
    epochs: sampleEpochs(6),
    bestEpoch: 5,
    learningRate: [
      [0, 2e-5],
      [1, 0.02],
      [6, 0.02],
    ],
    classes: [
      { name: `class ${HOSTILE}`, minScore: 0.3, maskThreshold: 0.45 },
      { name: 'other', minScore: 0.55, maskThreshold: 0.5 },
    ],
    final: {
      scores: { iouMap: 0.3456, boxMap30: 0.5, maskAP50: 0.6, boxAP50: 0.7, images: 12, instances: 90 },
      perClass: [
        { label: 1, instances: 40, scores: { iouMap: 0.111, boxMap30: 0.2, maskAP50: 0.3, boxAP50: 0.4 } },
        { label: 2, instances: 50, scores: { iouMap: null, boxMap30: 0.5, maskAP50: null, boxAP50: 0.6 } },
      ],
    },
    environment: {
      sessions: [
        {
          started: '2026-02-05T09:03:00.000Z',
          ended: null,
          machine: { processor: `processor ${HOSTILE}`, cores: 2, memoryGiB: 24, system: 'Linux 6' },
          adapter: { kind: 'swiftshader', name: 'SwiftShader', driver: 'first driver' },
          versions: { 'webgpu-mask-rcnn': '0.1.0', node: '20.20.2' },
        },
        {
          started: '2026-02-05T10:00:00.000Z',
          ended: '2026-02-05T11:30:00.000Z',
          machine: { processor: 'a processor', cores: 2, memoryGiB: 24, system: 'Linux 6' },
          adapter: { kind: 'lavapipe', name: `llvmpipe ${HOSTILE}`, driver: 'Mesa 25' },
          versions: { 'webgpu-mask-rcnn': '0.1.0', node: '20.20.2' },
        },
      ],
      data: {
        images: { train: 60, validation: 12 },
        cells: [
          { class: `class ${HOSTILE}`, train: 1234, validation: 40 },
          { class: 'other', train: 206, validation: 50 },
        ],
        sizes: [{ width: 704, height: 520, images: 72 }],
        cellsPerImage: { min: 0, median: 10.5, max: 40 },
      },
      model: { parameters: 492631 },
    },
    panels: null,
    files: [{ href: 'config%20x.json', name: `config ${HOSTILE}`, bytes: 402, what: 'every option' }],
    ...given,
  };
}
