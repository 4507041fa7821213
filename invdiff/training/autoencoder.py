"""Training of an autoencoder: `invdiff train configs/train/fashion-autoencoder.yaml`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from invdiff.datasets.darkness import said_if_dark
from invdiff.datasets.images import in_unit_range
from invdiff.datasets.pixels import check_apart, check_holdout, load_whole
from invdiff.errors import InputError
from invdiff.machine import hardware
from invdiff.priors.autoencoder import Autoencoder, save_autoencoder
from invdiff.priors.networks import Depths, Width, Widths
from invdiff.training.averages import Averages
from invdiff.training.settings import Frozen, ImageSettings, Name
from invdiff.training.short import finished_short, optimise, run_of, run_short

_TOGETHER = 500     # images that are looked at together


class AutoencoderNetwork(Frozen):
    """`invdiff.priors.autoencoder.Autoencoder` says what each means."""

    channels: Literal[1, 3] = 1
    latent_channels: Width = 4
    widths: Widths = (64, 128)
    depths: Depths = (2, 2)


class AutoencoderSettings(Frozen):
    """One run. What is minimised is the negative evidence lower bound of images with white noise of standard deviation
    `noise`, in units of 1 / (2 noise^2) and by pixel: |x - decode(z)|^2 + 2 noise^2 KL(z | x) (Kingma & Welling 2014, Eq. 3).
    The smaller `noise`, the nearer images come back, and the less smooth the latents are.

    AdamW with warm-up, and over the last `decay` of the steps a linear decay of the rate to zero; the weights are averaged
    over a share of the run (invdiff.training.averages) that `ema_gamma` sets.
    """

    kind: Literal["autoencoder"]
    name: Name
    data: ImageSettings
    network: AutoencoderNetwork = AutoencoderNetwork()
    noise: PositiveFloat = 0.03
    steps: PositiveInt = 6000
    batch: PositiveInt = 64
    rate: PositiveFloat = 1e-3
    warmup: PositiveInt = 100
    decay: float = Field(0.6, gt=0, le=1)
    clip: PositiveFloat = 0.1
    ema_gamma: PositiveFloat = 16.0
    precision: Literal["fp32", "bf16"] = "bf16"
    seed: int = Field(0, ge=0, lt=2**63)
    use: str = ""


class AutoencoderTrainer:
    """The state of a run: network, its averaged copy, optimiser, and the images, uint8 or float, in memory."""

    def __init__(self, settings: AutoencoderSettings, device: str | torch.device = "cpu"):
        s = self.settings = settings
        self.device = torch.device(device)
        self.images, self.test = load_images(s.data, s.network.channels)
        self.run = run_of(s, self.images, self.test)
        torch.manual_seed(s.seed)
        self.network = Autoencoder(**s.network.model_dump()).to(self.device).to(memory_format=torch.channels_last)
        height, width = self.images.shape[-2:]
        if height % self.network.factor or width % self.network.factor:
            raise InputError(f"network.widths: {len(s.network.widths)} of them need images whose sides are multiples of "
                             f"{self.network.factor}, got {height} x {width}")
        self.averages = Averages(self.network, (s.ema_gamma,))
        self.average = self.averages.copies[0]
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=s.rate, betas=(0.9, 0.99), weight_decay=0.0,
                                           fused=True)
        self.seconds = 0.0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images x (B, C, H, W) and unit noise of the latents' shape: a function of the seed and the step."""
        s, rng = self.settings, np.random.default_rng([self.settings.seed, step])
        x = torch.from_numpy(in_unit_range(self.images[rng.integers(len(self.images), size=s.batch)]))
        shape = (s.batch, s.network.latent_channels, *(n // self.network.factor for n in x.shape[-2:]))
        return x, torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    def step(self, number: int) -> dict[str, float]:
        """The step of a number, from 0; returns the mean squared error and the KL divergence by pixel, in nats."""
        s, started = self.settings, time.perf_counter()
        x, noise = (part.to(self.device) for part in self.batch(number))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            mean, log_variance = self.network.moments(x)
            back = self.network.decode(mean + (log_variance / 2).exp() * noise)
        error, kl = (back - x).square().mean(), divergence(mean, log_variance) / x[0].numel()
        loss = error + 2 * s.noise**2 * kl
        optimise(self, number, loss)
        self.seconds += time.perf_counter() - started
        return {"error": error.item(), "kl": kl.item()}


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) | N(0, 1)), the mean over items (B, ...), in nats (Kingma & Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean() / 2


def load_images(data: ImageSettings, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The images to train on and those for the card, (N, C, H, W), uint8 or float32 in [0, 1]. Raises InputError."""
    if data.test is not None:
        check_apart(data.path, data.key, data.test)
        return load_whole(data.path, data.key, channels), load_whole(data.path, data.test, channels)
    images = load_whole(data.path, data.key, channels)
    check_holdout(data.holdout, len(images))
    return images[: -data.holdout], images[-data.holdout :]


def train_autoencoder(settings: AutoencoderSettings, output: str | Path, device: str = "cpu", *,
                      on_step: Callable[[int, float], object] | None = None,
                      on_remark: Callable[[str], object] | None = None) -> Path:
    """Train to the end; returns the path of NAME.safetensors in `output`, beside log.jsonl. `on_step` gets the number of steps
    done and the running mean squared error, `on_remark`, before the first, what is to be said of the images, if anything. It
    takes minutes, and cannot go on from the middle; where it is done already, nothing is.

    Raises InputError for unusable data or where it diverges, and KeyboardInterrupt.
    """
    output = Path(output)
    path = output / f"{settings.name}.safetensors"
    trainer = AutoencoderTrainer(settings, device)
    if not finished_short(path, trainer.run):
        if on_remark and (said := said_if_dark(trainer.images)):
            on_remark(said)
        run_short(trainer, output, on_step)
        trainer.average.standardise(*latent_statistics(trainer.average, trainer.images))
        save_autoencoder(path, trainer.average, make_card(trainer))
    return path


def make_card(trainer: AutoencoderTrainer) -> dict[str, Any]:
    """What a user must know of the autoencoder, with how near test images come back."""
    s = trainer.settings
    return {"name": s.name, "data": s.data.description, "licence": s.data.licence, "use": s.use,
            "psnr": {"mean": reconstruction_psnr(trainer.average, trainer.test), "images": len(trainer.test)},
            "training": {**trainer.run, "minutes": round(trainer.seconds / 60, 2), "hardware": hardware(trainer.device)}}


@torch.no_grad()
def latent_statistics(autoencoder: Autoencoder, images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, never zero, of each channel of `encode` over images (N, C, H, W)."""
    z = encode_all(autoencoder, images)
    return z.mean((0, 2, 3)).tolist(), z.std((0, 2, 3)).clamp_min(1e-6).tolist()


@torch.no_grad()
def encode_all(autoencoder: Any, images: np.ndarray) -> Tensor:
    """The latents of images (N, C, H, W), uint8 or float32 in [0, 1], on the CPU."""
    device = next(autoencoder.parameters()).device
    parts = [torch.from_numpy(in_unit_range(images[i : i + _TOGETHER])).to(device) for i in range(0, len(images), _TOGETHER)]
    return torch.cat([autoencoder.encode(part).cpu() for part in parts])


@torch.no_grad()
def reconstruction_psnr(autoencoder: Any, images: np.ndarray) -> float:
    """Mean PSNR in dB over images of decode(encode(x)), clipped; the peak is 1."""
    device, scores = next(autoencoder.parameters()).device, []
    for i in range(0, len(images), _TOGETHER):
        x = torch.from_numpy(in_unit_range(images[i : i + _TOGETHER])).to(device)
        error = (autoencoder.decode(autoencoder.encode(x)).clamp(0, 1) - x).square().mean((1, 2, 3))
        scores.append(-10 * error.clamp_min(1e-12).log10())
    return round(float(torch.cat(scores).mean()), 3)
