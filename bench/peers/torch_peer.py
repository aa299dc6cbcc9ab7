"""PyTorch and torchvision on the CPU as a peer of the bench."""

from serve import cannot, serve


def start():
    import torch
    import torchvision
    from torchvision.ops import nms, roi_align

    def put(array, order=None):
        array = array if order is None else array.transpose(order)
        return torch.from_numpy(array.copy())

    def convolution(shape, names, given):
        x, weight = put(given["x"], (0, 3, 1, 2)), put(given["weight"], (3, 2, 0, 1))
        upstream = put(given["upstream"], (0, 3, 1, 2))
        stride, padding = [shape["stride"]] * 2, [shape["padding"]] * 2
        mask = ["dx" in names, "dw" in names, False]

        def compute():
            found = {}
            if "y" in names:
                found["y"] = torch.conv2d(x, weight, stride=stride, padding=padding)
            if any(mask):
                dx, dw, _ = torch.ops.aten.convolution_backward(
                    upstream, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, mask
                )
                found.update({name: value for name, value in (("dx", dx), ("dw", dw)) if name in names})
            return found

        return compute, {"y": (0, 2, 3, 1), "dx": (0, 2, 3, 1), "dw": (2, 3, 1, 0)}

    def aligned(setting, names, given):
        x = put(given["x"], (0, 3, 1, 2)).requires_grad_("dx" in names)
        upstream = put(given["upstream"], (0, 3, 1, 2))
        rois = put(given["rois"])
        options = {
            "output_size": setting["bins"],
            "spatial_scale": setting["spatialScale"],
            "sampling_ratio": setting["samplingRatio"],
        }
        channels, height, width = setting["channels"], setting["height"], setting["width"]

        def compute():
            if names == ["dx"]:
                # The backward kernel alone, as autograd calls it.
                bins, scale = setting["bins"], setting["spatialScale"]
                dx = torch.ops.torchvision._roi_align_backward(
                    upstream, rois, scale, bins, bins, 1, channels, height, width, setting["samplingRatio"], False
                )
                return {"dx": dx}
            y = roi_align(x, rois, **options)
            return {"y": y.detach()} if names == ["y"] else {"y": y.detach(), "dx": torch.autograd.grad(y, x, upstream)[0]}

        return compute, {"y": (0, 2, 3, 1), "dx": (0, 2, 3, 1)}

    def prepare(work, given):
        orders = {}
        if work["op"] == "matmul":
            a, b = put(given["a"]), put(given["b"])

            def compute():
                return {"y": a @ b}
        elif work["op"] == "conv2d":
            compute, orders = convolution(work["shape"], work["results"], given)
        elif work["op"] == "nms":
            boxes, scores = put(given["boxes"]), put(given["scores"])

            def compute():
                return {"kept": nms(boxes, scores, work["threshold"])}
        elif work["op"] == "roiAlign":
            compute, orders = aligned(work["setting"], work["results"], given)
        else:
            cannot(work)

        def results():
            found = {name: value.numpy() for name, value in compute().items()}
            return {name: value.transpose(orders[name]) if name in orders else value for name, value in found.items()}

        return compute, results

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    return {"adapter": f"CPU, {torch.get_num_threads()} threads", "versions": versions}, prepare


serve(start)
