"""Packaging of tfgraphreg; exact versions for development are in constraints.txt."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "tfgraphreg" / "__init__.py").read_text(encoding="utf-8")
).group(1)

# The Keras 2 API beside TensorFlow 2.16 and later; its minor version must be TensorFlow's.
TENSORFLOW = ["tensorflow>=2.15,<2.22", "tf-keras>=2.15,<2.22"]

EXTRAS = {
    # The last versions of TensorFlow and TensorFlow Addons that work together, and what
    # they need to go with.
    "addons": [
        "tensorflow==2.15.1",
        "tf-keras==2.15.1",
        "tensorflow-addons==0.23.0",
        "tensorflow-metadata<1.17",
        "numpy<2",
    ],
    "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26"],
    "gpu": ["tensorflow[and-cuda]>=2.15,<2.22"],
    # Not on the addons stack: its tensorflow-text needs a TensorFlow with Keras 3.
    "keras-hub": ["keras-hub>=0.21"],
    "kecam": ["keras-cv-attention-models>=1.4.3,<1.5"],
    "mde": ["pymde>=0.3", "torch>=2.0"],
    "test": [
        "graphlearning>=1.7",
        "hypothesis>=6",
        "import-linter>=2",
        "keras-cv-attention-models>=1.4.3,<1.5",
        "mypy>=1.13",
        "pandas>=2",  # sgt needs it and does not declare it
        "playwright>=1.40",
        "pytest>=8",
        "pytest-timeout>=2",
        "pytest-xdist>=3",
        "pytorch-metric-learning>=2.4",
        "ruff>=0.5",
        "safetensors>=0.4",
        "sgt>=2.0.3",
        "timm>=1.0",
        "torch>=2.0",
        "torchmetrics>=1.3",
    ],
}
_ALL = ("docs", "keras-hub", "kecam", "mde", "test")
EXTRAS["all"] = sorted({need for name in _ALL for need in EXTRAS[name]})

setup(
    name="tfgraphreg",
    version=VERSION,
    description="Image embeddings by graph regularization, in Keras",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tfgraphreg", "tfgraphreg.*"]),
    package_data={"tfgraphreg": ["configs/*.yaml", "py.typed", "visualize/*.html"]},
    install_requires=[
        *TENSORFLOW,
        "faiss-cpu>=1.8",
        "importlib_resources",  # tensorflow-datasets needs it for some builders
        "jsonargparse>=4.30",
        "keras-cv>=0.9,<0.10",
        "matplotlib>=3.7",
        "networkx>=3",
        "neural-structured-learning==1.4.0",
        "numba>=0.59",
        "numpy>=1.26",
        "pillow>=10",
        "plotly>=5",
        "pyarrow>=12",
        "rich>=13",
        "safetensors>=0.4",
        "scikit-image>=0.22",
        "scikit-learn>=1.3",
        "scipy>=1.10",
        "tensorboard>=2.15",
        "tensorflow-datasets>=4.9",
        "threadpoolctl>=3",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tfgraphreg=tfgraphreg.cli:main"]},
)
