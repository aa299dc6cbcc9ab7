#!/usr/bin/env python3
"""Small files of torch.save in every form that is read here, and their values: python make_checkpoint_fixtures.py OUT_DIR

The files beside this script's tests (test/fixtures/checkpoints) were written by torch 2.14.1.
"""
import argparse, collections, json, pathlib, sys, zipfile
import torch

out = pathlib.Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(1)

base = torch.arange(24, dtype=torch.float32) / 4
tensors = collections.OrderedDict(
    f32=torch.tensor([[1.5, -2.25, 0.1], [3e38, 1e-40, -0.0]]),
    f64=torch.tensor([0.1, -1 / 3, 1e-300], dtype=torch.float64),
    f16=torch.tensor([0.1, -65504.0, 6e-8, 0.0, float("inf"), 1 / 3], dtype=torch.float16),
    bf16=torch.tensor([0.1, -3e38, 1e-40, 1 / 3], dtype=torch.bfloat16),
    i64=torch.tensor([1, -2, 2**31 - 1, -(2**31)]),
    i32=torch.tensor([7, -8], dtype=torch.int32),
    i16=torch.tensor([300, -300], dtype=torch.int16),
    i8=torch.tensor([-128, 127], dtype=torch.int8),
    u8=torch.tensor([0, 255], dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    scalar=torch.tensor(3),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.tensor([0.5, 0.25])),
    # Views of one storage.
    whole=base,
    row=base[5:9],
    grid=base.reshape(2, 3, 4).permute(2, 0, 1),
    column=base.reshape(6, 4)[:, 1],
    repeated=base[3:5].reshape(2, 1).expand(2, 3),
    # A storage of its own, not contiguous; a strided half.
    transposed=torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),
    half_transposed=(torch.arange(6) / 3).to(torch.float16).reshape(3, 2).t(),
)


def values(t):
    t = t.detach()
    return t.to(torch.float32).reshape(-1).tolist() if t.is_floating_point() else t.to(torch.int64).reshape(-1).tolist()


def text(v):
    return repr(v) if isinstance(v, float) and (v != v or v in (float("inf"), float("-inf"))) else v


expected = {k: {"shape": list(t.shape), "values": [text(v) for v in values(t)]} for k, t in tensors.items()}
(out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")

torch.save(tensors, out / "zip.pth")
torch.save(tensors, out / "legacy.pth", _use_new_zipfile_serialization=False)
torch.save(tensors, out / "protocol4.pth", pickle_protocol=4)
with zipfile.ZipFile(out / "zip.pth") as stored, zipfile.ZipFile(out / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as packed:
    for info in stored.infolist():
        packed.writestr(zipfile.ZipInfo(info.filename), stored.read(info), zipfile.ZIP_DEFLATED)

model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
model(torch.ones(4, 2)).sum().backward(); optimizer.step()
training = dict(epoch=3, loss=0.5, history=[(1, 0.75), (2, 0.5)], names={"a", "b"}, big=2**70, none=None, size=torch.Size([2, 3]), optimizer=optimizer.state_dict())
for key in ("model", "state_dict", "model_state_dict"):
    torch.save({**training, key: model.state_dict()}, out / f"{key}.pth")
torch.save({**training, "model": model.state_dict()}, out / "model_legacy.pth", _use_new_zipfile_serialization=False)

# What is refused.
class Evil:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('pwned').write_text('x')",))
torch.save({"weight": torch.zeros(2), "boom": Evil()}, out / "hostile.pth")
torch.save({"weight": torch.zeros(2), "boom": Evil()}, out / "hostile_legacy.pth", _use_new_zipfile_serialization=False)
torch.save({"weight": torch.zeros(2), "boom": Evil()}, out / "hostile_protocol4.pth", pickle_protocol=4)
torch.save(model, out / "module.pth")
torch.save({"model": model.state_dict(), "args": argparse.Namespace(lr=0.1)}, out / "namespace.pth")
torch.save({"weight": torch.zeros(2, dtype=torch.complex64)}, out / "complex.pth")
torch.save({"epoch": 3, "lr": 0.1}, out / "no_tensors.pth")
torch.save([torch.zeros(2)], out / "list.pth")
