"""timm (PyTorch), the reference for the network families of our own."""

import numpy as np
import pytest

_LIBRARIES = []


def load_timm():
    """timm, or a skip. Works beside a CPU torch with a CUDA build of torchvision.

    Such a torchvision cannot load its compiled operators and then fails on import because two
    of them are not declared. timm needs none of them, so declaring them is enough.
    """
    torch = pytest.importorskip("torch", reason="timm, the reference for outputs, needs torch")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pass
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
    return pytest.importorskip("timm", reason="timm is the reference for counts and outputs")


def count_parameters(name: str, **arguments) -> int:
    """All parameters of timm's model, classifier included; nothing is allocated."""
    timm = load_timm()
    import torch

    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
    return sum(parameter.numel() for parameter in model.parameters())


def random_model(name: str, seed: int = 0, **arguments):
    """timm's model without a classifier, in inference, every weight and statistic random.

    What is born constant (biases, layer scales, normalizations) would hide a mistake in its
    mapping, so nothing is left as initialized. Running statistics are taken from a batch of
    noise: invented ones would make the signal die out before the last layer.
    """
    timm = load_timm()
    import torch

    model = timm.create_model(name, num_classes=0, **arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if "running_" in key:
                continue
            if value.dim() <= 1:
                # Gains near one keep the signal alive through dozens of blocks.
                center = 0.0 if key.endswith("bias") else 1.0
                value.copy_(center + 0.2 * noise)
            else:
                fan_in = max(1, value[0].numel())
                value.copy_(noise / fan_in**0.5)
        _measure_statistics(model, generator)
    return model.eval()


def _measure_statistics(model, generator) -> None:
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = None  # A plain mean over the batches seen.
    if norms:
        model.train()(torch.randn((16, 3, 64, 64), generator=generator))


def features(model, images) -> np.ndarray:
    """Features [B, D] of timm's `model` for `images` [B, H, W, C]."""
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))).numpy()
