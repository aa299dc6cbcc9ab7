#!/usr/bin/env python3
"""What PyTorch does with weights of this project: python torch_peer.py JOB.json

JOB is {"do": …} with what each function below takes. Tensors come and go as files of torch.save.
"""
import json, pathlib, sys
import torch

torch.set_num_threads(2)


def load(path):
    return torch.load(path, weights_only=True)


def same(job):
    """Whether two files hold the same names, dtypes, shapes and values."""
    a, b = load(job["a"]), load(job["b"])
    assert list(a) == list(b), (list(a), list(b))
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name
        assert a[name].is_contiguous(), name


def copy(job):
    """Loads a file and saves it again."""
    torch.save(load(job["from"]), job["to"])


def model_of(job):
    from torchvision_model import build
    return build(job["config"])


def inputs(job):
    given = load(job["input"])
    count = sum(name.endswith(".image") for name in given)
    images = [given[f"{i}.image"] for i in range(count)]
    targets = [{k: given[f"{i}.{k}"] for k in ("boxes", "labels", "masks")} for i in range(count)]
    return images, targets


def detect(job):
    """Detections with weights that must load strictly, as PyTorch users do it."""
    model = model_of(job)
    model.load_state_dict(load(job["weights"]), strict=True)
    model.eval()
    with torch.no_grad():
        found = model(inputs(job)[0])
    torch.save({f"{i}.{k}": v for i, one in enumerate(found) for k, v in one.items()}, job["output"])


def train(job):
    """Trains from random weights, saves them, and goes on: the losses of the steps behind."""
    torch.manual_seed(job["seed"])
    # The first of the candidates are sampled, as here.
    torch.randperm = lambda n, **kw: torch.arange(n, device=kw.get("device"))
    model = model_of(job)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
    images, targets = inputs(job)

    def steps(count):
        optimizer = torch.optim.SGD(model.parameters(), lr=job["lr"], momentum=job["momentum"], weight_decay=job["weightDecay"])
        losses = []
        for _ in range(count):
            named = model([image.clone() for image in images], [{k: v.clone() for k, v in t.items()} for t in targets])
            losses.append([named[name].item() for name in job["lossNames"]])
            optimizer.zero_grad(); sum(named.values()).backward(); optimizer.step()
        return torch.tensor(losses)

    steps(job["before"])
    torch.save({"model": model.state_dict(), "epoch": 1}, job["weights"])
    torch.save({"losses": steps(job["after"])}, job["output"])


job = json.loads(pathlib.Path(sys.argv[1]).read_text())
{"same": same, "copy": copy, "detect": detect, "train": train}[job["do"]](job)
