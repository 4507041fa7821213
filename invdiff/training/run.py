"""`invdiff train`: a Trainer with checkpoints, validation, a log and, at the end, a prior with its card."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_table
from invdiff.priors.calibrated import LEVELS
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.spectrum import measure_spectrum
from invdiff.training.data import Patches, load_images
from invdiff.training.loop import Progress, Trainer
from invdiff.training.settings import TrainSettings

BANDS = (0.03, 0.1, 0.3, 1.0)       # edges of the noise bands whose loss is reported
VALIDATION = (15 / 255, 25 / 255, 50 / 255, 0.5, 2.0)


def train(settings: TrainSettings, output: str | Path, device: str = "cpu", *, validate_every: int = 1000,
          save_seconds: float = 120.0, on_step: Callable[[Progress, Trainer], object] | None = None) -> Path:
    """Train to the end, from the last checkpoint in `output` if there is one; returns the prior's path.

    `output` gets state.safetensors (the resumable state), log.jsonl and NAME.safetensors (the prior).
    Raises InputError for unusable data or a checkpoint of another run.
    """
    output = Path(output)
    images = load_images(settings.data.path, settings.data.key)
    if settings.data.test and Path(settings.data.path).is_dir():
        raise InputError("data.test: names a dataset of an HDF5 file, and the data are a folder; set data.test=null")
    test = load_images(settings.data.path, settings.data.test) if settings.data.test else []
    if settings.data.holdout >= len(images):
        raise InputError(f"data.holdout: expected fewer than the {len(images)} images there are, got {settings.data.holdout}")
    kept, held = images[: -settings.data.holdout], images[-settings.data.holdout :]
    patches = Patches(kept, max(settings.data.patch), settings.data.scales, settings.data.grey)
    trainer = Trainer(settings, patches, device)
    state = output / "state.safetensors"
    if state.exists():
        trainer.resume(state)
    crops = centre_crops(held, 128)
    recent: list[Progress] = []
    saved = time.monotonic()
    try:
        for progress in trainer.steps():
            recent.append(progress)
            if trainer.step % validate_every == 0 or trainer.step == settings.optimiser.steps:
                trainer.log.append(log_line(trainer, recent, crops))
                write_log(output / "log.jsonl", trainer.log)
                recent = []
            if on_step:
                on_step(progress, trainer)
            if time.monotonic() - saved > save_seconds:
                trainer.save(state)
                saved = time.monotonic()
    finally:
        if trainer.whole:       # an interrupt within a step leaves the last checkpoint as it was
            trainer.save(state)
    return export(trainer, held, test, output / f"{settings.name}.safetensors")


def export(trainer: Trainer, held: Sequence[np.ndarray], test: Sequence[np.ndarray], path: Path) -> Path:
    """Write the averaged weights as a prior; its card holds error spectra on `held` and a denoising table on `test`."""
    denoiser = trainer.average.eval()
    card = make_card(trainer)
    crops = list(centre_crops(held, 256 if min(min(i.shape[:2]) for i in held) >= 256 else 64).to(trainer.device))
    source = f"measured on {len(crops)} held-back training images"
    card["spectrum"] = measure_spectrum(denoiser, crops, LEVELS, source).to_dict()
    if trainer.settings.network.channels == 3:
        grey = [crop.mean(0, keepdim=True) for crop in crops]
        card["spectrum_grey"] = measure_spectrum(denoiser, grey, LEVELS, source).to_dict()
    if test:
        images = [_tensor(image).to(trainer.device) for image in test]
        card["denoising"] = {"psnr": denoising_table(denoiser, images), "sigma": "of 255",
                             "images": f"{len(images)} of {trainer.settings.data.test}, whole"}
    save_prior(path, denoiser, card)
    return path


def make_card(trainer: Trainer) -> dict:
    """What a user must know of the prior: architecture, data, licence, how it was trained."""
    s = trainer.settings
    return {
        "name": s.name, "architecture": s.network.model_dump(),
        "preconditioning": {"sigma_data": s.noise.sigma_data, "centre": s.noise.centre},
        "sigma_range": [s.noise.low, s.noise.high],
        "data": s.data.description, "licence": s.data.licence, "use": s.use,
        "training": {"settings": s.model_dump(mode="json", exclude={"data": {"path"}}), "steps": trainer.step,
                     "hours": round(trainer.seconds / 3600, 3), "hardware": hardware(trainer.device), "log": trainer.log},
    }


def log_line(trainer: Trainer, recent: Sequence[Progress], crops: Tensor) -> dict:
    """Mean loss since the last line, in all and by noise band, and PSNR on held-back images."""
    losses, sigmas = torch.cat([p.losses for p in recent]), torch.cat([p.sigmas for p in recent])
    band = torch.bucketize(sigmas, torch.tensor(BANDS))
    by_band = [round(float(losses[band == k].mean()), 5) if (band == k).any() else None for k in range(len(BANDS) + 1)]
    psnr = {f"{sigma:.3g}": round(denoising_psnr(trainer.average, crops.to(trainer.device), sigma), 3) for sigma in VALIDATION}
    return {"step": trainer.step, "seconds": round(trainer.seconds, 1), "loss": round(float(losses.mean()), 5),
            "loss_by_band": by_band, "psnr": psnr}


@torch.no_grad()
def denoising_psnr(denoiser: EDMDenoiser, images: Tensor, sigma: float, seed: int = 0) -> float:
    """Mean PSNR in dB over images (N, C, H, W) in [0, 1] of D(x0 + sigma n, sigma), clipped to [0, 1]."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    error = [(denoiser(x[None] + sigma * n[None], sigma).clamp(0, 1) - x).square().mean()
             for x, n in zip(images, noise, strict=True)]
    return float(-10 * torch.stack(error).log10().mean())


def centre_crops(images: Sequence[np.ndarray], size: int) -> Tensor:
    """uint8 (H, W, 3) images -> (N, 3, size, size) in [0, 1]."""
    tops = [((i.shape[0] - size) // 2, (i.shape[1] - size) // 2) for i in images]
    crops = [i[t : t + size, l : l + size] for i, (t, l) in zip(images, tops, strict=True)]
    return torch.stack([_tensor(crop) for crop in crops])


def _tensor(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def write_log(path: Path, lines: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}"
