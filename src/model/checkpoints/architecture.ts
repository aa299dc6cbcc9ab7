/** What a file's names and shapes tell of the model that it belongs to. */
import { UserError } from '../../cli/errors.ts';
import type { MaskRCNNOptions } from '../config.ts';
import { listed, modelNames, type NamedTensors } from './match.ts';
import { BODY, currentName, hasOldNames, isBatchCounter } from './names.ts';

/** Classes of torchvision's published COCO models, with the background. */
export const COCO_CLASS_COUNT = 91;
export const DEFAULT_BATCH_NORM_EPS = 1e-5;

/** Aspect ratios of torchvision's anchors; others are not told by a file. */
const RATIOS = 3;

/** Options of the model that shapes decide; all others are torchvision's defaults. */
export type InferredOptions = Pick<
  MaskRCNNOptions,
  'block' | 'layers' | 'width' | 'norm' | 'fpnChannels' | 'representationSize' | 'masks' | 'numClasses'
> &
  Partial<Pick<MaskRCNNOptions, 'maskLayers' | 'maskDimReduced' | 'headNorm' | 'rpnConvDepth' | 'boxConvLayers'>>;

/** Whether a file's names are those of `maskrcnn_resnet50_fpn_v2` or its kin: norms in the heads, a deeper RPN. */
function isSecondVersion(names: ReadonlyMap<string, unknown>): boolean {
  return ['backbone.fpn.inner_blocks.0.1.weight', 'rpn.head.conv.1.0.weight', 'roi_heads.box_head.0.0.weight'].some(
    (name) => names.has(name),
  );
}

/**
 * The model of a file that tells nothing but its tensors: a ResNet-FPN detector under torchvision's names.
 * @throws UserError naming the first thing that is missing for it, or cannot be told from the file
 */
export function inferArchitecture(file: NamedTensors): InferredOptions {
  const { names: given, bare } = modelNames(file);
  const shapes = new Map([...given].map(([name, stored]) => [currentName(name), file.tensors.get(stored)!.shape]));
  if (bare) {
    throw new UserError(
      `${file.path} holds a ResNet alone, without heads that detect: train from it (train --weights).`,
    );
  }
  /** A side of a tensor. */
  const side = (name: string, axis: number): number => {
    const extent = shapes.get(name)?.[axis];
    if (extent !== undefined) return extent;
    const some = [...given.values()].slice(0, 4).map((stored) => ({ name: stored, text: '' }));
    throw new UserError(
      `${file.path} is no detector of torchvision's: it has no ${name} of ${axis + 1} or more dimensions, but ${listed(some)} …`,
    );
  };
  /** How many entries `name(0)`, `name(1)`, … there are. */
  const count = (name: (index: number) => string): number => {
    let index = 0;
    while (shapes.has(name(index))) index++;
    return index;
  };
  const width = side(`${BODY}conv1.weight`, 0);
  const ratios = side('rpn.head.cls_logits.weight', 0);
  if (ratios !== RATIOS) {
    throw new UserError(
      `${file.path} has ${ratios} anchors at each place, expected ${RATIOS} (aspect ratios .5, 1, 2): its own cannot be told from it.`,
    );
  }
  const masks = shapes.has('roi_heads.mask_predictor.mask_fcn_logits.weight');
  const maskLayer = (index: number): string => `roi_heads.mask_head.${index}.0.weight`;
  const boxConv = (index: number): string => `roi_heads.box_head.${index}.0.weight`;
  const boxConvs = count(boxConv);
  // Behind the convolutions stands Flatten, which has no parameters but a number.
  const firstLinear = boxConvs === 0 ? 'fc6' : boxConvs + 1;
  return {
    block: shapes.has(`${BODY}layer1.0.conv3.weight`) ? 'bottleneck' : 'basic',
    layers: [1, 2, 3, 4].map((layer) => count((index) => `${BODY}layer${layer}.${index}.conv1.weight`)),
    width,
    norm: [...file.tensors.keys()].some(isBatchCounter) ? 'batch' : 'frozen',
    fpnChannels: side('backbone.fpn.inner_blocks.0.0.weight', 0),
    representationSize: side(`roi_heads.box_head.${firstLinear}.weight`, 0),
    masks,
    ...(isSecondVersion(shapes) && {
      headNorm: shapes.has('backbone.fpn.inner_blocks.0.1.weight') ? 'batch' : 'none',
      rpnConvDepth: count((index) => `rpn.head.conv.${index}.0.weight`),
      boxConvLayers: Array.from({ length: boxConvs }, (_, index) => side(boxConv(index), 0)),
    }),
    ...(masks && {
      maskLayers: Array.from({ length: count(maskLayer) }, (_, index) => side(maskLayer(index), 0)),
      maskDimReduced: side('roi_heads.mask_predictor.conv5_mask.weight', 1),
    }),
    numClasses: side('roi_heads.box_predictor.cls_score.weight', 0),
  };
}

/**
 * The eps of the batch norms, which no file of PyTorch tells: torchvision sets 0 for its published COCO_V1 weights (`overwrite_eps`), so
 * it is 0 for all that was fine-tuned from them, and 1e-5 for a model built on a bare ResNet.
 * @param given the user's choice, if any
 * @returns the value and one sentence that says why
 */
export function chooseBatchNormEps(file: NamedTensors, given: number | undefined): { eps: number; why: string } {
  const tell = (eps: number, reason: string) => ({ eps, why: `Batch norm eps ${eps}: ${reason}.` });
  if (given !== undefined) return tell(given, 'as --batch-norm-eps says');
  const { names, bare } = modelNames(file);
  const eps = DEFAULT_BATCH_NORM_EPS;
  if (bare) return tell(eps, `PyTorch's default, since ${file.path} is a bare ResNet`);
  if (isSecondVersion(names))
    return tell(eps, `as all of torchvision's models have it that are like ${file.path}, a v2`);
  const scores = names.get('roi_heads.box_predictor.cls_score.weight');
  const classes = scores === undefined ? undefined : file.tensors.get(scores)!.shape[0];
  if (classes === COCO_CLASS_COUNT && hasOldNames(names.keys())) {
    return tell(
      0,
      `${file.path} has the names and 91 classes of torchvision's published COCO_V1 weights, which need it`,
    );
  }
  return tell(
    eps,
    `PyTorch's default, since ${file.path} does not tell; if it was fine-tuned from torchvision's COCO_V1 weights, pass --batch-norm-eps 0`,
  );
}
