"""Scores COCO files with pycocotools and tells its numbers and times: coco_peer.py TRUTH RESULTS ROUNDS"""

import contextlib
import copy
import io
import json
import sys
import time

import numpy
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluate(truth, results, iou_type):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def main(truth_path, results_path, rounds):
    with open(truth_path) as file:
        truth = json.load(file)
    with open(results_path) as file:
        results = json.load(file)
    answer = {"python": sys.version.split()[0], "numpy": numpy.__version__}
    for iou_type in ("segm", "bbox"):
        seconds = []
        for _ in range(rounds):
            # pycocotools writes into what it is given; copies are not timed.
            own = copy.deepcopy((truth, results))
            started = time.perf_counter()
            stats = evaluate(*own, iou_type)
            seconds.append(time.perf_counter() - started)
        answer[iou_type] = {"stats": stats, "seconds": seconds}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
