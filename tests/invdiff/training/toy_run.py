"""A tiny run on four made-up pictures."""

import numpy as np

from invdiff.training.patches import Patches
from invdiff.training.settings import TrainSettings


def settings(steps=6, **changes):
    optimiser = {"steps": steps, "batch": 4, "rate": 2e-3, "warmup": 2} | changes.pop("optimiser", {})
    data = {"path": "nowhere", "patch": (16, 32), "grey": 0.3} | changes.pop("data", {})
    network = changes.pop("network", {"widths": (8, 12), "depths": (1, 1), "embedding": 16})
    return TrainSettings(name="toy", data=data, network=network, optimiser=optimiser, precision="fp32", **changes)


def patches(count=4, moved=0.0):
    y, x = np.mgrid[:48, :64] / 10
    images = [np.stack([np.sin(x + k), np.cos(y * k / 3), np.sin(x - y)], -1) for k in np.arange(count) + moved]
    return Patches([(127 * (1 + i)).astype(np.uint8) for i in images], 32, (1.0,), grey=0.3)


def run(trainer, count=None):
    for _, progress in zip(range(count or 10**9), trainer.steps(), strict=False):
        last = progress
    return last
