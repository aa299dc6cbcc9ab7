import { describe, expect, it } from 'vitest';
import { chooseBatchNormEps, inferArchitecture } from '../../../src/model/checkpoints/architecture.ts';
import { matchWeights, type NamedTensors } from '../../../src/model/checkpoints/match.ts';
import { currentName, wrapperPrefix } from '../../../src/model/checkpoints/names.ts';
import type { TensorInfo } from '../../../src/model/checkpoints/weightsFile.ts';
import { type MaskRCNNConfig, parseConfig } from '../../../src/model/config.ts';
import { MaskRCNN } from '../../../src/model/maskRcnn.ts';
import { presetConfig } from '../../../src/model/presets.ts';
import { smallestConfig } from '../../train/tinyRun.ts';

type Shapes = Map<string, TensorInfo>;

/** A file with the model's own tensors, changed. */
function fileOf(config: MaskRCNNConfig, change: (shapes: Shapes) => void = () => undefined): NamedTensors {
  const tensors: Shapes = new Map(
    [...new MaskRCNN(config).state.entries.values()].map(({ name, shape }) => [name, { dtype: 'F32', shape }]),
  );
  change(tensors);
  return { path: 'w.pth', tensors };
}

function renameAll(shapes: Shapes, rename: (name: string) => string): void {
  const renamed = [...shapes].map(([name, info]) => [rename(name), info] as const);
  shapes.clear();
  for (const [name, info] of renamed) shapes.set(name, info);
}

/** Names as torchvision's published COCO_V1 file has them. */
function oldName(name: string): string {
  return name
    .replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
    .replace(/mask_head\.(\d+)\.0\./, (_, i) => `mask_head.mask_fcn${Number(i) + 1}.`)
    .replace(/(inner|layer)_blocks\.(\d)\.0\./, '$1_blocks.$2.');
}

const config = smallestConfig();
const { state } = new MaskRCNN(config);
const whole = { purpose: 'whole' } as const;
const start = { purpose: 'start' } as const;

describe('names of torchvision’s generations', () => {
  it('follow the hooks of its modules', () => {
    expect(currentName('rpn.head.conv.weight')).toBe('rpn.head.conv.0.0.weight');
    expect(currentName('roi_heads.mask_head.mask_fcn1.bias')).toBe('roi_heads.mask_head.0.0.bias');
    expect(currentName('roi_heads.mask_head.mask_fcn4.weight')).toBe('roi_heads.mask_head.3.0.weight');
    expect(currentName('backbone.fpn.inner_blocks.0.weight')).toBe('backbone.fpn.inner_blocks.0.0.weight');
    expect(currentName('backbone.fpn.layer_blocks.3.bias')).toBe('backbone.fpn.layer_blocks.3.0.bias');
    for (const name of state.entries.keys()) {
      expect(currentName(name), name).toBe(name);
      expect(currentName(oldName(name)), name).toBe(name);
    }
  });

  it('are found in both directions', () => {
    const names = [...state.entries.keys()];
    const old = matchWeights(
      fileOf(config, (shapes) => renameAll(shapes, oldName)),
      state,
      whole,
    );
    expect([...old.names]).toEqual(names.map((name) => [name, oldName(name)]));
    expect(old.notes).toEqual([]);
    // A model with the old names takes a file with the new.
    const entries = new Map(
      [...state.entries.values()].map((entry) => [
        oldName(entry.name),
        { ...entry, name: oldName(entry.name), shape: entry.shape },
      ]),
    );
    const back = matchWeights(fileOf(config), { entries } as unknown as typeof state, whole);
    expect([...back.names]).toEqual(names.map((name) => [oldName(name), name]));
  });

  it('may have a wrapper’s prefix and batch counters', () => {
    const file = fileOf(config, (shapes) => {
      shapes.set('backbone.body.bn1.num_batches_tracked', { dtype: 'I64', shape: [] });
      renameAll(shapes, (name) => `module._orig_mod.${name}`);
    });
    const { names } = matchWeights(file, state, whole);
    expect(names.get('rpn.head.cls_logits.bias')).toBe('module._orig_mod.rpn.head.cls_logits.bias');
    expect(names.size).toBe(state.entries.size);
    expect(wrapperPrefix(['module.a', 'b'])).toBe('');
    expect(wrapperPrefix(['module.'.repeat(1e5)])).toBe('module.module.');
  });

  it('that come twice are told', () => {
    const twice = fileOf(config, (shapes) => shapes.set('rpn.head.conv.bias', { dtype: 'F32', shape: [8] }));
    expect(() => matchWeights(twice, state, whole)).toThrow('the model does not have its rpn.head.conv.bias [8]');
  });
});

describe('a bare ResNet', () => {
  const bare = (change: (shapes: Shapes) => void = () => undefined) =>
    fileOf(config, (shapes) => {
      for (const name of [...shapes.keys()]) if (!name.startsWith('backbone.body.')) shapes.delete(name);
      renameAll(shapes, (name) => name.replace('backbone.body.', ''));
      shapes.set('fc.weight', { dtype: 'F32', shape: [1000, 64] });
      shapes.set('fc.bias', { dtype: 'F32', shape: [1000] });
      shapes.set('bn1.num_batches_tracked', { dtype: 'I64', shape: [] });
      change(shapes);
    });

  it('goes into the backbone, without its classifier', () => {
    const { names, notes } = matchWeights(bare(), state, start);
    const body = [...state.entries.keys()].filter((name) => name.startsWith('backbone.body.'));
    expect([...names]).toEqual(body.map((name) => [name, name.replace('backbone.body.', '')]));
    expect(notes).toEqual([
      'w.pth holds a ResNet alone: it goes into backbone.body, fc.{weight, bias} left out; all else starts from initial values.',
    ]);
    expect(chooseBatchNormEps(bare(), undefined)).toMatchObject({
      eps: 1e-5,
      why: expect.stringContaining('bare ResNet'),
    });
  });

  it('must be the model’s own, and does not detect', () => {
    const other = bare((shapes) => {
      shapes.set('conv1.weight', { dtype: 'F32', shape: [64, 3, 7, 7] });
      shapes.delete('layer4.0.bn2.running_var');
    });
    expect(() => matchWeights(other, state, start)).toThrow(
      'it lacks backbone.body.layer4.0.bn2.running_var [64]; it has backbone.body.conv1.weight [64,3,7,7] instead of [8,3,7,7].',
    );
    expect(() => matchWeights(bare(), state, whole)).toThrow('it lacks backbone.fpn.inner_blocks.0.0.weight');
    expect(() => inferArchitecture(bare())).toThrow('without heads that detect');
  });
});

describe('other classes', () => {
  const other = fileOf(smallestConfig({ numClasses: 5 }));

  it('start the predictors anew, as torchvision’s FastRCNNPredictor and MaskRCNNPredictor do', () => {
    const { names, notes } = matchWeights(other, state, start);
    expect([...state.entries.keys()].filter((name) => !names.has(name))).toEqual([
      'roi_heads.box_predictor.cls_score.weight',
      'roi_heads.box_predictor.cls_score.bias',
      'roi_heads.box_predictor.bbox_pred.weight',
      'roi_heads.box_predictor.bbox_pred.bias',
      'roi_heads.mask_predictor.conv5_mask.weight',
      'roi_heads.mask_predictor.conv5_mask.bias',
      'roi_heads.mask_predictor.mask_fcn_logits.weight',
      'roi_heads.mask_predictor.mask_fcn_logits.bias',
    ]);
    expect(notes).toEqual([
      'w.pth has 5 classes, the model 3 (with the background): the predictors start from initial values: ' +
        'roi_heads.box_predictor.cls_score.{weight, bias}, roi_heads.box_predictor.bbox_pred.{weight, bias}, ' +
        'roi_heads.mask_predictor.conv5_mask.{weight, bias}, roi_heads.mask_predictor.mask_fcn_logits.{weight, bias}.',
    ]);
  });

  it('cannot predict', () => {
    expect(() => matchWeights(other, state, whole)).toThrow(
      'it has roi_heads.box_predictor.cls_score.weight [5,16] instead of [3,16], roi_heads.box_predictor.cls_score.bias [5] instead of [3]',
    );
  });

  it('excuse no other difference', () => {
    const odd = fileOf(smallestConfig({ numClasses: 5 }), (shapes) => {
      shapes.set('roi_heads.box_predictor.bbox_pred.bias', { dtype: 'F32', shape: [4] });
      shapes.set('roi_heads.mask_predictor.conv5_mask.weight', { dtype: 'F32', shape: [8, 9, 2, 2] });
      shapes.set('rpn.head.cls_logits.bias', { dtype: 'I32', shape: [3] });
    });
    expect(() => matchWeights(odd, state, start)).toThrow(
      'w.pth does not fit the model: it has rpn.head.cls_logits.bias of I32 instead of floating-point values, ' +
        'roi_heads.box_predictor.bbox_pred.bias [4] instead of [12], ' +
        'roi_heads.mask_predictor.conv5_mask.weight [8,9,2,2] instead of [8,8,2,2].',
    );
  });
});

describe('what shapes tell of a model', () => {
  const shown = ({
    block,
    layers,
    width,
    norm,
    fpnChannels,
    representationSize,
    masks,
    maskLayers,
    maskDimReduced,
    numClasses,
  }: MaskRCNNConfig) => ({
    ...{ block, layers, width, norm, fpnChannels, representationSize, masks, numClasses },
    ...(masks && { maskLayers, maskDimReduced }),
  });

  it.each<[string, MaskRCNNConfig]>([
    ['resnet50', presetConfig('resnet50', { numClasses: 91, inputSize: { width: 704, height: 520 } })],
    ['the smallest', smallestConfig({ norm: 'frozen', layers: [1, 2, 1, 3], maskLayers: [8, 12] })],
    ['a Faster R-CNN', smallestConfig({ norm: 'frozen', masks: false })],
  ])('%s, with old names or new', (_, model) => {
    for (const rename of [(name: string) => name, oldName]) {
      const file = fileOf(model, (shapes) => renameAll(shapes, rename));
      const inferred = inferArchitecture(file);
      expect(inferred).toEqual(shown(model));
      // Complete enough to load the file.
      const built = new MaskRCNN(parseConfig(inferred, 'w.pth'));
      expect(matchWeights(file, built.state, whole).names.size).toBe(built.state.entries.size);
    }
  });

  it.each<[string, Partial<MaskRCNNConfig>]>([
    [
      'maskrcnn_resnet50_fpn_v2',
      presetConfig('resnet50-v2', { numClasses: 91, inputSize: { width: 704, height: 520 } }),
    ],
    ['norms in the heads alone', smallestConfig({ headNorm: 'batch' })],
    ['a deeper RPN alone', smallestConfig({ rpnConvDepth: 3 })],
    ['convolutions in the box head alone', smallestConfig({ boxConvLayers: [8, 12] })],
  ])('%s', (_, given) => {
    const model = parseConfig({ ...given, norm: 'frozen' }, 'test');
    const inferred = inferArchitecture(fileOf(model));
    const { headNorm, rpnConvDepth, boxConvLayers } = model;
    expect(inferred).toEqual({ ...shown(model), headNorm, rpnConvDepth, boxConvLayers });
    const built = new MaskRCNN(parseConfig(inferred, 'w.pth'));
    expect(matchWeights(fileOf(model), built.state, whole).names.size).toBe(built.state.entries.size);
    expect(chooseBatchNormEps(fileOf(model), undefined)).toMatchObject({
      eps: 1e-5,
      why: expect.stringContaining('v2'),
    });
  });

  it('a batch norm by its counters', () => {
    const counted = fileOf(config, (shapes) =>
      shapes.set('backbone.body.bn1.num_batches_tracked', { dtype: 'I64', shape: [] }),
    );
    expect(inferArchitecture(counted).norm).toBe('batch');
  });

  it('not what they do not tell', () => {
    const change = (edit: (shapes: Shapes) => void) => () => inferArchitecture(fileOf(config, edit));
    expect(change((shapes) => shapes.set('rpn.head.cls_logits.weight', { dtype: 'F32', shape: [9, 8, 1, 1] }))).toThrow(
      'w.pth has 9 anchors at each place, expected 3',
    );
    expect(change((shapes) => shapes.delete('roi_heads.box_head.fc6.weight'))).toThrow(
      "w.pth is no detector of torchvision's: it has no roi_heads.box_head.fc6.weight",
    );
  });
});

describe('the eps of frozen batch norms', () => {
  const coco = presetConfig('resnet50', { numClasses: 91, inputSize: { width: 704, height: 520 } });
  const published = fileOf(coco, (shapes) => renameAll(shapes, oldName));

  it.each<[string, NamedTensors, number | undefined, number, string]>([
    [
      'torchvision’s published file',
      published,
      undefined,
      0,
      "Batch norm eps 0: w.pth has the names and 91 classes of torchvision's published COCO_V1 weights",
    ],
    [
      'the same with today’s names',
      fileOf(coco),
      undefined,
      1e-5,
      "does not tell; if it was fine-tuned from torchvision's COCO_V1 weights, pass --batch-norm-eps 0",
    ],
    [
      'published names with other classes',
      fileOf(config, (shapes) => renameAll(shapes, oldName)),
      undefined,
      1e-5,
      'does not tell',
    ],
    ['whatever the user says', published, 1e-3, 1e-3, 'Batch norm eps 0.001: as --batch-norm-eps says.'],
  ])('%s', (_, file, given, eps, why) => {
    const chosen = chooseBatchNormEps(file, given);
    expect(chosen.eps).toBe(eps);
    expect(chosen.why).toContain(why);
  });
});
