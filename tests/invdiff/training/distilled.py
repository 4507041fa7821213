"""What tests of distillation share: images of three classes, a teacher of them, and runs of a few steps."""

import numpy as np
import torch

from invdiff.priors.checkpoint import read_tensors, save_prior
from invdiff.training.beginning import build_denoiser
from invdiff.training.whole import WholeImages


def images():
    pictures = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3)).astype(np.uint8)
    return WholeImages(list(pictures), 1, np.arange(12) % 3)


def small_teacher(folder, made):
    """The file of a small prior of three classes, of random weights."""
    torch.manual_seed(1)
    denoiser = build_denoiser(made)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    card = {"architecture": made.network.model_dump(), "preconditioning": {"sigma_data": 0.3, "centre": 0.5}}
    save_prior(folder / "teacher.safetensors", denoiser, card)
    return str(folder / "teacher.safetensors")


def run(trainer, count=10**9):
    for _ in zip(range(count), trainer.steps(), strict=False):
        pass


def stored(trainer, folder):
    trainer.save(folder / "compare.safetensors")
    return read_tensors(folder / "compare.safetensors")[0]
