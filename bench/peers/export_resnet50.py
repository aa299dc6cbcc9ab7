"""Writes torchvision's maskrcnn_resnet50_fpn as ONNX: export_resnet50.py WEIGHTS_JSON OUT HEIGHT WIDTH CLASSES DETECTIONS

WEIGHTS_JSON lists {name, shape, file}: raw float32 of each entry of the state_dict, in PyTorch's layouts. The image that the model
takes is [3, HEIGHT, WIDTH]; it is not resized inside, and at most DETECTIONS cells come out.
"""

import json
import sys

import numpy
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection import MaskRCNN


def main(weights, out, height, width, classes, detections):
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=0)
    model = MaskRCNN(
        backbone,
        num_classes=classes,
        min_size=min(height, width),
        max_size=max(height, width),
        box_detections_per_img=detections,
    )
    with open(weights) as file:
        entries = json.load(file)
    state = {
        entry["name"]: torch.from_numpy(numpy.fromfile(entry["file"], dtype="float32").reshape(entry["shape"]))
        for entry in entries
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, f"unknown weights {unexpected[:3]}"
    assert all(name.endswith("num_batches_tracked") for name in missing), f"missing weights {missing[:3]}"
    model.eval()
    # An image with structure, since the exporter runs the model, and what has no detections is not traced whole.
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    torch.onnx.export(
        model,
        ([image],),
        out,
        opset_version=16,
        do_constant_folding=True,
        input_names=["image"],
        output_names=["boxes", "labels", "scores", "masks"],
        dynamo=False,
    )
    print(json.dumps({"torch": torch.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(value) for value in sys.argv[3:]))
