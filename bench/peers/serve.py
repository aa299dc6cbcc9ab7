"""The Python side of a peer of the bench: lines of JSON over stdin and stdout, tensors in files. See work.ts."""

import json
import os
import sys
import time
import traceback

# Whatever a library prints goes to stderr; answers alone go to stdout.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(line):
    _answers.write(json.dumps(line) + "\n")
    _answers.flush()


def reason(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'it gives no reason'}"


def read(stored):
    import numpy

    return numpy.fromfile(stored["file"], dtype=stored["dtype"]).reshape(stored["shape"])


def store(folder, name, array):
    import numpy

    dtype = "int32" if array.dtype.kind in "iu" else "float32"
    file = os.path.join(folder, f"{name}.bin")
    numpy.ascontiguousarray(array, dtype=dtype).tofile(file)
    return {"file": file, "shape": list(array.shape), "dtype": dtype}


def timed(run):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def cannot(work):
    raise NotImplementedError(f"it has no {work['op']}")


def serve(start):
    """`start()` gives {adapter, versions} and `prepare(work, inputs)`, which gives (run, results): `run()` computes once and waits,
    `results()` gives numpy arrays by name, in this program's layouts."""
    try:
        ready, prepare = start()
        answer(ready)
    except Exception as error:
        traceback.print_exc()
        answer({"error": reason(error)})
        return
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "run":
                if run is None:
                    raise RuntimeError("nothing was prepared")
                answer({"ms": timed(run)})
                continue
            run = None
            if request["do"] == "release":
                answer({})
                continue
            inputs = {name: read(stored) for name, stored in request["inputs"].items()}
            run, results = prepare(request["work"], inputs)
            stored = {name: store(request["folder"], name, array) for name, array in results().items()}
            answer({"results": stored, "ms": timed(run)})
        except Exception as error:
            answer({"error": reason(error)})
