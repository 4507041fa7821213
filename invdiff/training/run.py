"""`invdiff train`: a Trainer with checkpoints, validation, a log and, at the end, a prior with its card."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_table
from invdiff.priors.calibrated import LEVELS
from invdiff.priors.checkpoint import save_prior
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.spectrum import measure_spectrum
from invdiff.training.complex_data import ComplexPatches, load_complex, load_magnitudes, to_channels
from invdiff.training.data import Patches, load_images, to_rgb
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
    patches, held, test = load_data(settings)
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


def load_data(settings: TrainSettings) -> tuple[Patches | ComplexPatches, list[Tensor], list[Tensor]]:
    """Training patches, the held-back images and the test images, (C, H, W) each. Raises InputError."""
    data = settings.data
    if data.test and Path(data.path).is_dir():
        raise InputError("data.test: names a dataset of an HDF5 file, and the data are a folder; set data.test=null")
    kind: tuple = (load_complex, to_channels) if settings.network.channels == 2 else (load_images, to_rgb)
    load, to_tensor = kind
    images = load(data.path, data.key)
    if data.holdout >= len(images):
        raise InputError(f"data.holdout: expected fewer than the {len(images)} images there are, got {data.holdout}")
    kept, held = images[: -data.holdout], images[-data.holdout :]
    patches: Patches | ComplexPatches
    if settings.network.channels == 2:
        path = Path(data.path).parent / data.magnitudes if data.magnitudes else None
        magnitudes = load_magnitudes(path, data.magnitudes_key) if path else []
        patches = ComplexPatches(kept, magnitudes, max(data.patch), data.scales)
    else:
        patches = Patches(kept, max(data.patch), data.scales, data.grey)
    test = load(data.path, data.test) if data.test else []
    return patches, [to_tensor(image) for image in held], [to_tensor(image) for image in test]


def export(trainer: Trainer, held: Sequence[Tensor], test: Sequence[Tensor], path: Path) -> Path:
    """Write the averaged weights as a prior; its card holds error spectra on `held` and a denoising table on `test`."""
    denoiser = trainer.average.eval()
    card = make_card(trainer)
    crops = list(centre_crops(held, 256 if min(min(i.shape[1:]) for i in held) >= 256 else 64).to(trainer.device))
    source = f"measured on {len(crops)} held-back training images"
    card["spectrum"] = measure_spectrum(denoiser, crops, LEVELS, source).to_dict()
    if trainer.settings.network.channels == 3:
        grey = [crop.mean(0, keepdim=True) for crop in crops]
        card["spectrum_grey"] = measure_spectrum(denoiser, grey, LEVELS, source).to_dict()
    if test:
        images = [image.to(trainer.device) for image in test]
        kind = {"sigma": "of 255", "images": f"{len(images)} of {trainer.settings.data.test}, whole"}
        card["denoising"] = {"psnr": denoising_table(denoiser, images)} | kind
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
    """Mean PSNR in dB over images (N, C, H, W) of D(x0 + sigma n, sigma), clipped; the peak is 1."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    low = -1.0 if images.shape[1] == 2 else 0.0
    error = [(denoiser(x[None] + sigma * n[None], sigma).clamp(low, 1) - x).square().mean()
             for x, n in zip(images, noise, strict=True)]
    return float(-10 * torch.stack(error).log10().mean())


def centre_crops(images: Sequence[Tensor], size: int) -> Tensor:
    """(C, H, W) images -> (N, C, size, size)."""
    corners = [((i.shape[1] - size) // 2, (i.shape[2] - size) // 2) for i in images]
    return torch.stack([i[:, t : t + size, l : l + size] for i, (t, l) in zip(images, corners, strict=True)])


def write_log(path: Path, lines: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}"
