import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.report import write_report
from tfgraphreg.graph.similarity import SimilarityGraph


def digits(n=120):
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[:n, ..., None] * 15).astype(np.uint8), data.target[:n]


def test_page_is_self_contained_with_pictures(tmp_path):
    images, labels = digits()
    labels = labels.copy()
    labels[:5] = -1
    graph = knn_graph(images.reshape(120, -1) / 255.0, k=5)
    names = [f"<digit {c}>" for c in range(10)]
    facts = write_report(graph, images, labels, names, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page and "http" not in page
    pictures = re.findall(r"base64,([^\"]+)", page)
    assert len(pictures) == 4
    for picture in pictures:
        values = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert values.std() > 5 and min(values.shape) > 100
    assert f"<td>{facts['edge_label_agreement']:.2%}</td>" in page and "<td>600</td>" in page
    for said in ("isolated nodes", "components", "hubness", "metric: cosine", "most often: "):
        assert said in page
    assert "heaviest between different classes" in page and "warning" not in page.split("<body>")[1]


def test_page_without_labels_edges_or_with_multi_hot_labels(tmp_path):
    images, labels = digits(20)
    empty = SimilarityGraph.from_edges([], [], [], 20)
    write_report(empty, images, None, None, tmp_path / "r.html")
    assert "loss would be zero: the graph has no edges" in (tmp_path / "r.html").read_text()
    graph = knn_graph(images.reshape(20, -1) / 255.0, k=2)
    colored, multi = np.repeat(images, 3, -1), np.eye(10, dtype=np.int8)[labels]
    write_report(graph, colored, multi, None, tmp_path / "m.html")
    write_report(graph, images, None, None, tmp_path / "n.html")
    assert "Worst edges: the lightest" in (tmp_path / "n.html").read_text()
    with pytest.raises(GraphError, match=r"19 images, 20 nodes"):
        write_report(graph, images[:19], None, None, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
