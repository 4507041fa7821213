"""What a run says of itself as it goes: validation, log.jsonl, sheets of samples, TensorBoard."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invdiff.datasets.crops import centre_crops
from invdiff.errors import InputError
from invdiff.evaluation.denoising import denoising_psnr
from invdiff.figures import save_sheet, sheet
from invdiff.io.files import write_text, writing
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.training.loop import Progress, Trainer
from invdiff.training.samples import draw_samples

BANDS = (0.03, 0.1, 0.3, 1.0)       # edges of the noise bands whose loss is reported
VALIDATION = (15 / 255, 25 / 255, 50 / 255, 0.5, 2.0)


class Monitor:
    """Sees every step; writes into `output` at the steps that `settings.monitor` names, and at the last.

    Raises InputError if TensorBoard is asked for and not installed, and where `output` cannot be written.
    """

    def __init__(self, trainer: Trainer, held: Sequence[Tensor], output: Path):
        self.trainer, self.output, self.settings = trainer, output, trainer.settings.monitor
        self.crops = centre_crops(held, min(128, *(min(i.shape[1:]) for i in held))).to(trainer.device)
        self.recent: list[Progress] = []
        self.board = _board(output / "tensorboard", trainer.step) if self.settings.tensorboard else None

    def see(self, progress: Progress) -> None:
        """Take in a step, and validate and draw if it is time."""
        self.recent.append(progress)
        last = progress.step == self.trainer.settings.optimiser.steps
        if progress.step % self.settings.every == 0 or last:
            self._validate()
        if self.settings.sheet and (progress.step % self.settings.sheet_every == 0 or last):
            self._draw(progress.step)

    def _validate(self) -> None:
        trainer = self.trainer
        line = log_line(trainer, self.recent, self.crops)
        trainer.log.append(line)
        write_log(self.output / "log.jsonl", trainer.log)
        self.recent = []
        if self.board:
            rows = {"loss": line["loss"], "rate": trainer.optimiser.param_groups[0]["lr"]}
            rows |= {f"loss by band/{name}": v for name, v in zip(band_names(), line["loss_by_band"], strict=True)}
            rows |= {f"psnr/{level}": value for level, value in line["psnr"].items()}
            with writing(self.output):
                for name, value in rows.items():
                    if value is not None:
                        self.board.add_scalar(name, value, trainer.step)

    def _draw(self, step: int) -> None:
        picture = sample_sheet(self.trainer, self.trainer.average)
        save_sheet(self.output / "samples" / f"{step:07d}.png", picture)
        if self.board:
            with writing(self.output):
                self.board.add_image("samples", np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Write what TensorBoard has not written yet."""
        if self.board:
            with writing(self.output):
                self.board.close()


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("monitor.tensorboard: TensorBoard is not installed; pip install tensorboard, or set it to false"
                         ) from error
    with writing(folder):
        return SummaryWriter(str(folder), purge_step=step + 1)      # what a killed run wrote beyond its last checkpoint


def sample_sheet(trainer: Trainer, denoiser: EDMDenoiser) -> Image.Image:
    """A sheet of the settings' number and size, drawn as a prior of few steps is to be, if it is one; latents are decoded."""
    s, m, noise = trainer.settings, trainer.settings.monitor, trainer.settings.noise
    coder = trainer.coder
    size = m.sheet_size // (coder.factor if coder else 1)
    few = s.loss.sampling(noise, trainer.step, s.optimiser.steps)
    if few:
        samples = draw_samples(denoiser, m.sheet, size, few.steps, few.sigma_min, few.sigma_max, integrator=few.integrator,
                               schedule=few.schedule)
    else:
        samples = draw_samples(denoiser, m.sheet, size, m.sheet_steps, *s.loss.trained_range(noise))
    with torch.no_grad():
        return sheet(coder.decode(samples) if coder else samples)


def log_line(trainer: Trainer, recent: Sequence[Progress], crops: Tensor) -> dict:
    """Mean loss since the last line, in all and by noise band, and PSNR on held-back images."""
    losses, sigmas = torch.cat([p.losses for p in recent]), torch.cat([p.sigmas for p in recent])
    clip = not trainer.settings.latent
    psnr = {f"{sigma:.3g}": round(denoising_psnr(trainer.average, list(crops), sigma, clip), 3) for sigma in VALIDATION}
    return {"step": trainer.step, "seconds": round(trainer.seconds, 1), "loss": round(float(losses.mean()), 5),
            "loss_by_band": loss_by_band(losses, sigmas), "psnr": psnr}


def loss_by_band(losses: Tensor, sigmas: Tensor) -> list[float | None]:
    """The mean of losses (B,) in each band of sigmas (B,); None where there is none."""
    band = torch.bucketize(sigmas, torch.tensor(BANDS, dtype=sigmas.dtype))
    return [round(float(losses[band == k].mean()), 5) if (band == k).any() else None for k in range(len(BANDS) + 1)]


def band_names() -> list[str]:
    return [f"sigma < {BANDS[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(BANDS)), f"> {BANDS[-1]:g}"]


def best_average(trainer: Trainer, crops: Tensor) -> int:
    """Which of the averages denoises the crops (N, C, H, W) best, in mean PSNR over the levels of `VALIDATION`."""
    clip = not trainer.settings.latent
    scores = [sum(denoising_psnr(average, list(crops), sigma, clip) for sigma in VALIDATION)
              for average in trainer.averages.copies]
    return int(np.argmax(scores))


def write_log(path: Path, lines: Sequence[dict]) -> None:
    with writing(path):
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
