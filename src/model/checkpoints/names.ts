/** torchvision's parameter names through its generations. Its modules rename old ones when they load (`_load_from_state_dict`). */

/** Older name → today's: RPNHead, MaskRCNNHeads and FeaturePyramidNetwork became sequences of ConvNormActivation blocks. */
const renamed: readonly [RegExp, (...parts: string[]) => string][] = [
  // torchvision/models/detection/rpn.py
  [/^(.*rpn\.head\.conv)\.(weight|bias)$/, (_, conv, leaf) => `${conv}.0.0.${leaf}`],
  // torchvision/models/detection/mask_rcnn.py
  [/^(.*mask_head)\.mask_fcn(\d+)\.(weight|bias)$/, (_, head, layer, leaf) => `${head}.${Number(layer) - 1}.0.${leaf}`],
  // torchvision/ops/feature_pyramid_network.py
  [/^(.*fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$/, (_, block, leaf) => `${block}.0.${leaf}`],
];

/** Today's name of a parameter; a name that was never changed is its own. */
export function currentName(name: string): string {
  const rule = renamed.find(([pattern]) => pattern.test(name));
  return rule ? name.replace(rule[0], rule[1]) : name;
}

/** Names that `nn.DataParallel`, `DistributedDataParallel` and `torch.compile` put before all others. */
const WRAPPERS = ['module.', '_orig_mod.'];

/** The prefix that every name has because the model was wrapped when it was saved; mostly none. */
export function wrapperPrefix(names: readonly string[]): string {
  let prefix = '';
  // A model is not wrapped more than twice.
  for (let depth = 0; depth < 2 && names.length > 0; depth++) {
    const wrapper = WRAPPERS.find((text) => names.every((name) => name.startsWith(prefix + text)));
    if (wrapper === undefined) break;
    prefix += wrapper;
  }
  return prefix;
}

/** Counters of BatchNorm2d, which nothing but an average without momentum needs. */
export const isBatchCounter = (name: string): boolean => name.endsWith('num_batches_tracked');

/** The module that torchvision's whole model keeps its ResNet in. */
export const BODY = 'backbone.body.';

/** Whether a file holds torchvision's plain ResNet (weights of ImageNet): `conv1.weight`, …, `fc.weight`. */
export function isBareResNet(names: ReadonlySet<string>): boolean {
  return names.has('conv1.weight') && names.has('layer1.0.conv1.weight');
}

/** Whether a file has the names of torchvision's older generations, as the published COCO_V1 files do. */
export function hasOldNames(names: Iterable<string>): boolean {
  for (const name of names) if (currentName(name) !== name) return true;
  return false;
}
