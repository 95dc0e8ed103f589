"""Slow, obvious answers that the evaluation room is compared with."""

import math

import numpy as np
import pytest


def ranking(query, gallery, distance):
    """Positions of the gallery, nearest first, equal distances by position."""
    values = [distance(query, row) for row in gallery]
    return sorted(range(len(gallery)), key=lambda i: (values[i], i))


def cosine(x, y):
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return 1.0 - (float(np.dot(x, y)) / norm if norm else 0.0)


def euclidean(x, y):
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y)))


def manhattan(x, y):
    return sum(abs(float(a) - float(b)) for a, b in zip(x, y))


def retrieval(queries, query_labels, gallery, gallery_labels, *, distance, ks, cutoff, own=None):
    """All retrieval numbers by plain loops. `own[q]` is the gallery position of q itself."""
    rows = []
    for q, query in enumerate(queries):
        order = ranking(query, gallery, distance)
        if own is not None:
            order = [i for i in order if i != own[q]]
        hits = [_relevant(query_labels[q], gallery_labels[i]) for i in order]
        total = sum(hits)
        if not total:
            continue
        row = {}
        for k in ks:
            row[f"recall_at_{k}"] = float(any(hits[:k]))
            row[f"precision_at_{k}"] = sum(hits[:k]) / k
        row["mean_average_precision"] = _ap(hits, cutoff) / min(total, cutoff)
        row["map_at_r"] = _ap(hits, total) / total
        row["r_precision"] = sum(hits[:total]) / total
        gain = sum(1 / math.log2(i + 2) for i, hit in enumerate(hits[:cutoff]) if hit)
        row["ndcg"] = gain / sum(1 / math.log2(i + 2) for i in range(min(total, cutoff)))
        first = hits.index(True) + 1
        row["mean_reciprocal_rank"] = 1 / first if first <= cutoff else 0.0
        rows.append(row)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _relevant(a, b):
    if np.ndim(a):
        return any(x and y for x, y in zip(a, b))
    return bool(a == b)


def _ap(hits, depth):
    found, value = 0, 0.0
    for i, hit in enumerate(hits[:depth]):
        if hit:
            found += 1
            value += found / (i + 1)
    return value


def torchmetrics(module):
    """A module of torchmetrics, also beside a torchvision whose compiled part does not load."""
    torch = pytest.importorskip("torch", reason="the reference is a PyTorch package")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        kind = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", kind)
    except ImportError:
        pass
    return pytest.importorskip(f"torchmetrics.{module}", reason="the reference is torchmetrics")


def voc_average_precision(relevant, scores, difficult, *, eleven_point):
    """As the VOC development kit's VOCevalcls.m writes it."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    hits = [relevant[i] for i in order if not difficult[i]]
    return voc_ap(hits, sum(hits), eleven_point=eleven_point)


def voc_ap(hits, positives, *, eleven_point):
    """As the VOC development kit's VOCap.m writes it, line by line."""
    tp = 0
    recall, precision = [], []
    for i, hit in enumerate(hits):
        tp += bool(hit)
        recall.append(tp / positives)
        precision.append(tp / (i + 1))
    if eleven_point:
        ap = 0.0
        for step in range(11):
            above = [p for r, p in zip(recall, precision) if r >= step / 10 - 1e-12]
            ap += max(above, default=0.0) / 11
        return ap
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))


def voc_detection_ap(truth, found, number, iou, eleven_point):
    """As VOCevaldet.m writes it, with edges in place of its pixels."""
    rows = [
        (-score, image, k)
        for image, guess in enumerate(found)
        for k, (kind, score) in enumerate(zip(guess.classes, guess.scores))
        if kind == number
    ]
    rows = sorted(rows, key=lambda row: row[0])  # stable
    own = [[i for i, kind in enumerate(true.classes) if kind == number] for true in truth]
    positives = sum(not truth[t].difficult[i] for t, mine in enumerate(own) for i in mine)
    if not positives:
        return float("nan")
    taken, hits = set(), []
    for _, image, k in rows:
        box, best, where = found[image].boxes[k], -1.0, None
        for i in own[image]:
            overlap = plain_iou(box, truth[image].boxes[i])
            if overlap > best:
                best, where = overlap, i
        if best < iou:
            hits.append(False)
        elif not truth[image].difficult[where]:
            hits.append((image, where) not in taken)
            taken.add((image, where))
    return voc_ap(hits, positives, eleven_point=eleven_point)


def plain_iou(a, b):
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area - shared) if area > shared else 0.0
