"""torchvision's Mask R-CNN, or Faster R-CNN, from a configuration of this project (src/model/config.ts)."""
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool


class Body(ResNet):
    """A ResNet whose stem may have another width than 64, and without the classifier."""

    def __init__(self, block, layers, width, norm):
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation, self.groups, self.base_width = norm, width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for i, depth in enumerate(layers):
            setattr(self, f"layer{i + 1}", self._make_layer(block, width * 2**i, depth, stride=1 if i == 0 else 2))


def build(config):
    c = config
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[c["block"]]
    norm = {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d}[c["norm"]]
    body = Body(block, c["layers"], c["width"], lambda n: norm(n, eps=c["batchNormEps"]))
    channels = [c["width"] * 2**i * block.expansion for i in range(4)]
    fpn = c["fpnChannels"]
    backbone = BackboneWithFPN(body, {f"layer{i + 1}": str(i) for i in range(4)}, channels, fpn, LastLevelMaxPool())
    ratios = tuple(c["aspectRatios"])

    def pool(size):
        return MultiScaleRoIAlign(["0", "1", "2", "3"], size, 2, canonical_scale=c["canonicalScale"], canonical_level=c["canonicalLevel"])

    options = dict(
        min_size=c["minSize"], max_size=c["maxSize"], image_mean=c["imageMean"], image_std=c["imageStd"], size_divisible=c["sizeDivisible"],
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in c["anchorSizes"]), (ratios,) * 5), rpn_head=RPNHead(fpn, len(ratios)),
        rpn_pre_nms_top_n_train=c["rpnPreNmsTopNTrain"], rpn_pre_nms_top_n_test=c["rpnPreNmsTopNTest"],
        rpn_post_nms_top_n_train=c["rpnPostNmsTopNTrain"], rpn_post_nms_top_n_test=c["rpnPostNmsTopNTest"],
        rpn_nms_thresh=c["rpnNmsThresh"], rpn_fg_iou_thresh=c["rpnFgIouThresh"], rpn_bg_iou_thresh=c["rpnBgIouThresh"],
        rpn_batch_size_per_image=c["rpnBatchSizePerImage"], rpn_positive_fraction=c["rpnPositiveFraction"], rpn_score_thresh=c["rpnScoreThresh"],
        box_roi_pool=pool(7), box_head=TwoMLPHead(fpn * 49, c["representationSize"]),
        box_predictor=FastRCNNPredictor(c["representationSize"], c["numClasses"]),
        box_score_thresh=c["boxScoreThresh"], box_nms_thresh=c["boxNmsThresh"], box_detections_per_img=c["boxDetectionsPerImg"],
        box_fg_iou_thresh=c["boxFgIouThresh"], box_bg_iou_thresh=c["boxBgIouThresh"],
        box_batch_size_per_image=c["boxBatchSizePerImage"], box_positive_fraction=c["boxPositiveFraction"])
    if not c["masks"]:
        return FasterRCNN(backbone, **options)
    return MaskRCNN(backbone, mask_roi_pool=pool(14), mask_head=MaskRCNNHeads(fpn, c["maskLayers"], 1),
                    mask_predictor=MaskRCNNPredictor(c["maskLayers"][-1], c["maskDimReduced"], c["numClasses"]), **options)
