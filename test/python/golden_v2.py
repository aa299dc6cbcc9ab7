#!/usr/bin/env python3
"""A golden case of the v2 form of the model (`maskrcnn_resnet50_fpn_v2`: BatchNorm2d everywhere, RPN of two convolutions, box
head of convolutions and one linear layer), small, in the format of the goldens. Needs torch, torchvision and safetensors.

    python golden_v2.py MAKE_GOLDENS OUT      MAKE_GOLDENS is the goldens' make_goldens.py
"""
import importlib.util, re, sys
import numpy as np
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

spec = importlib.util.spec_from_file_location("make_goldens", sys.argv[1])
G = importlib.util.module_from_spec(spec)
spec.loader.exec_module(G)
plain_weight = G.formula_weight


def formula_weight(name, shape, seed):
    """The goldens' formula; norms behind the heads' convolutions follow the rule of the backbone's."""
    if not re.search(r"\.(inner_blocks|layer_blocks|box_head|mask_head)\.\d+\.1\.", name):
        return plain_weight(name, shape, seed)
    u = G.hash_uniform(name, int(np.prod(shape)), seed)
    leaf = name.rsplit(".", 1)[-1]
    value = {"weight": 1 + 0.2 * u, "bias": 0.1 * u, "running_mean": 0.1 * u, "running_var": 1 + 0.3 * u}[leaf]
    return value.astype(np.float32).reshape(shape)


def build(cfg):
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[cfg["block"]]
    body = G.Backbone(block, cfg["layers"], cfg["width"], nn.BatchNorm2d)
    chans = [cfg["width"] * m * block.expansion for m in (1, 2, 4, 8)]
    fpn = cfg["fpnChannels"]
    backbone = BackboneWithFPN(body, {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}, chans, fpn, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d)
    pool = lambda size: MultiScaleRoIAlign(["0", "1", "2", "3"], size, 2, canonical_scale=cfg["canonicalScale"])
    model = MaskRCNN(
        backbone, min_size=cfg["minSize"], max_size=cfg["maxSize"],
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in cfg["anchorSizes"]), ((0.5, 1.0, 2.0),) * 5),
        rpn_head=RPNHead(fpn, 3, conv_depth=cfg["rpnConvDepth"]),
        rpn_pre_nms_top_n_train=cfg["rpnPreNmsTopNTrain"], rpn_pre_nms_top_n_test=cfg["rpnPreNmsTopNTest"],
        rpn_post_nms_top_n_train=cfg["rpnPostNmsTopNTrain"], rpn_post_nms_top_n_test=cfg["rpnPostNmsTopNTest"],
        rpn_batch_size_per_image=cfg["rpnBatchSizePerImage"], box_batch_size_per_image=cfg["boxBatchSizePerImage"],
        box_detections_per_img=cfg["boxDetectionsPerImg"], box_score_thresh=cfg["boxScoreThresh"],
        box_roi_pool=pool(7), box_head=FastRCNNConvFCHead((fpn, 7, 7), cfg["boxConvLayers"], [cfg["representationSize"]], norm_layer=nn.BatchNorm2d),
        box_predictor=FastRCNNPredictor(cfg["representationSize"], cfg["numClasses"]),
        mask_roi_pool=pool(14), mask_head=MaskRCNNHeads(fpn, cfg["maskLayers"], 1, norm_layer=nn.BatchNorm2d),
        mask_predictor=MaskRCNNPredictor(cfg["maskLayers"][-1], cfg["maskDimReduced"], cfg["numClasses"]))
    G.last_norm_is_bn2["value"] = cfg["block"] == "basic"
    state = {k: v if k.endswith("num_batches_tracked") else torch.from_numpy(formula_weight(k, tuple(v.shape), cfg["seed"]))
             for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model


G.formula_weight, G.build = formula_weight, build
cfg = {**G.TINY, "norm": "batch", "headNorm": "batch", "rpnConvDepth": 2, "boxConvLayers": [16, 16], "width": 8, "fpnChannels": 16,
       "maskLayers": [16, 16], "maskDimReduced": 16, "representationSize": 32, "minSize": 64, "maxSize": 96,
       "boxDetectionsPerImg": 8, "boxBatchSizePerImage": 16, "rpnPreNmsTopNTrain": 100, "rpnPostNmsTopNTrain": 60, "rpnPreNmsTopNTest": 50,
       "rpnPostNmsTopNTest": 30, "seed": 11}
G.model_case(sys.argv[2], "tiny-v2", cfg, [(61, 64, 80, 4)], 2, False)
