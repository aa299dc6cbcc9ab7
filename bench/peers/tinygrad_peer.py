"""tinygrad's WEBGPU backend as a peer of the bench."""

import os
import platform

from serve import cannot, serve

os.environ["DEV"] = "WEBGPU"
os.environ["WEBGPU"] = "1"


def library():
    """dawn-python's library for this machine."""
    import pydawn

    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    suffix = {"Linux": f"_{machine}.so", "Darwin": f"_{'arm64' if machine == 'aarch64' else machine}.dylib", "Windows": ".dll"}
    return os.path.join(os.path.dirname(pydawn.__file__), "lib", f"libwebgpu_dawn{suffix[platform.system()]}")


def adapter_name():
    """What Dawn tells of the adapter that tinygrad takes."""
    from tinygrad.runtime import ops_webgpu
    from tinygrad.runtime.autogen import webgpu

    options = webgpu.WGPURequestAdapterOptions(powerPreference=webgpu.WGPUPowerPreference_HighPerformance, backendType=0)
    adapter = ops_webgpu.InstanceRequestAdapter(ops_webgpu.instance, options)
    info = webgpu.WGPUAdapterInfo()
    webgpu.wgpuAdapterGetInfo(adapter, info)
    name, driver = ops_webgpu.from_wgpu_str(info.device), ops_webgpu.from_wgpu_str(info.description)
    webgpu.wgpuAdapterRelease(adapter)
    return f"{name} ({driver})"


def start():
    os.environ.setdefault("WEBGPU_PATH", library())
    from importlib.metadata import version

    from tinygrad import Device, Tensor, TinyJit

    if Device.DEFAULT != "WEBGPU":
        raise RuntimeError(f"it computes on {Device.DEFAULT}, not on WEBGPU")
    device = Device["WEBGPU"]

    def prepare(work, given):
        def put(array, order=None):
            array = array if order is None else array.transpose(order)
            return Tensor(array.copy(), device="WEBGPU").realize()

        if work["op"] == "matmul":
            inputs = [put(given["a"]), put(given["b"])]
            names, orders = ["y"], [None]

            def compute(a, b):
                return [a @ b]
        elif work["op"] == "conv2d":
            shape, names = work["shape"], work["results"]
            inputs = [put(given["x"], (0, 3, 1, 2)), put(given["weight"], (3, 2, 0, 1)), put(given["upstream"], (0, 3, 1, 2))]
            orders = [(2, 3, 1, 0) if name == "dw" else (0, 2, 3, 1) for name in names]
            of = [name[1] for name in names if name != "y"]

            def compute(x, weight, upstream):
                y = x.conv2d(weight, stride=shape["stride"], padding=shape["padding"])
                targets = [{"x": x, "w": weight}[name] for name in of]
                gradients = dict(zip(of, y.gradient(*targets, gradient=upstream))) if targets else {}
                return [y if name == "y" else gradients[name[1]] for name in names]
        else:
            cannot(work)

        # Captured after two calls; then a run is the kernels alone.
        @TinyJit
        def jitted(*x):
            results = compute(*x)
            Tensor.realize(*results)
            return results

        def once():
            results = jitted(*inputs)
            device.synchronize()
            return results

        for _ in range(3):
            once()

        def results():
            arrays = [result.numpy() for result in once()]
            return {name: array if order is None else array.transpose(order) for name, array, order in zip(names, arrays, orders)}

        return once, results

    versions = {name: version(name) for name in ("tinygrad", "dawn-python")}
    return {"adapter": adapter_name(), "versions": versions}, prepare


serve(start)
