"""A training run that can be killed at any moment: step k is a function of the state before it and of (seed, k)."""

import contextlib
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.priors.checkpoint import read_tensors, write_tensors
from invdiff.priors.denoiser import EDMDenoiser, edm_loss
from invdiff.priors.unet import UNet
from invdiff.training.complex_data import ComplexPatches
from invdiff.training.data import Patches
from invdiff.training.settings import NoiseSettings, TrainSettings


@dataclass(frozen=True)
class Progress:
    """What one optimiser step saw: weighted loss per item with its noise level, both (B,)."""

    step: int
    loss: float
    losses: Tensor
    sigmas: Tensor


class Trainer:
    """Network, optimiser and moving average of a run. `steps()` trains; `save` and `resume` carry it over a kill."""

    def __init__(self, settings: TrainSettings, patches: Patches | ComplexPatches, device: str | torch.device = "cpu"):
        self.settings, self.patches, self.device = settings, patches, torch.device(device)
        self.step, self.seconds = 0, 0.0
        self.whole = True               # False within a step
        self.log: list[dict] = []        # a line for each validation
        torch.manual_seed(settings.seed)
        self.denoiser = build_denoiser(settings).to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.parameters = list(self.denoiser.parameters())
        o = settings.optimiser
        self.optimiser = torch.optim.AdamW(self.parameters, lr=o.rate, betas=(0.9, 0.99), weight_decay=o.weight_decay,
                                           fused=True)

    def steps(self) -> Iterator[Progress]:
        """Train to the end, yielding after each step. Stop whenever you like: the state is whole at each yield."""
        while self.step < self.settings.optimiser.steps:
            start = time.perf_counter()
            progress = self._advance()
            self.seconds += time.perf_counter() - start
            yield progress

    def _advance(self) -> Progress:
        o = self.settings.optimiser
        self.whole = False
        x0, noise, sigma = self._batch(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = o.rate * learning_rate_factor(self.step, o.steps, o.warmup, o.decay)
        self.optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            losses = edm_loss(self.denoiser, x0, noise, sigma)
        loss = losses.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, o.clip)
        self.optimiser.step()
        self.step += 1
        # power-function average (Karras et al. 2024, Eq. 1): a fixed share of the run, however long it is
        beta = (1 - 1 / self.step) ** (o.ema_gamma + 1)
        torch._foreach_lerp_(list(self.average.parameters()), self.parameters, 1 - beta)
        self.whole = True
        return Progress(self.step, float(loss.detach()), losses.detach().cpu(), sigma.cpu())

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean patches, unit noise (the same on all channels where the patch is grey) and noise levels of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        sizes = self.settings.data.patch
        size = sizes[step % len(sizes)]
        count = max(1, round(self.settings.optimiser.batch * (min(sizes) / size) ** 2))
        x0, grey = self.patches.batch(count, size, rng)
        noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
        noise = torch.where(grey.view(-1, 1, 1, 1), noise[:, :1], noise)
        sigma = draw_sigmas(self.settings.noise, len(x0), rng)
        return x0.to(self.device), noise.to(self.device), sigma.to(self.device)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def save(self, path: str | Path) -> None:
        """Everything that the next step depends on, in one safetensors file, written whole or not at all."""
        tensors = {f"net.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items()}
        state = {"step": self.step, "seconds": self.seconds, "log": self.log, "settings": self._identity()}
        write_tensors(path, {k: v.cpu().contiguous() for k, v in tensors.items()}, {"state": json.dumps(state)})

    def resume(self, path: str | Path) -> None:
        """Go on from `save`. Raises InputError if the file belongs to a run with other settings (`steps` may differ)."""
        tensors, metadata = read_tensors(path)
        state = json.loads(metadata.get("state", "{}"))
        if state.get("settings") != self._identity():
            raise InputError(f"{path}: belongs to a run with other settings; use another --output or delete it")
        for name, module in (("net.", self.denoiser), ("average.", self.average)):
            module.load_state_dict({k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".")
                # in the parameter's memory format, which a file forgets: the fused optimiser reads both in storage order
                kept = torch.empty_like(self.parameters[int(index)]).copy_(value) if value.ndim else value
                moments.setdefault(int(index), {})[name] = kept
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]

    def _identity(self) -> dict:
        """The settings that make two runs the same run: all but its length and where the data lie."""
        apart = {"optimiser": {"steps", "decay"}, "data": {"path", "test"}}
        return json.loads(self.settings.model_dump_json(exclude=apart))


def build_denoiser(settings: TrainSettings) -> EDMDenoiser:
    """An untrained denoiser of the settings' architecture and preconditioning."""
    network = UNet(**settings.network.model_dump())
    return EDMDenoiser(network, settings.network.channels, settings.noise.sigma_data, settings.noise.centre)


def draw_sigmas(noise: NoiseSettings, count: int, rng: np.random.Generator) -> Tensor:
    """Noise levels (count,) in [low, high], spread evenly over the distribution's quantiles to lower the variance."""
    quantiles = (rng.permutation(count) + rng.random()) / count
    log_normal = noise.log_mean + noise.log_std * np.array([NormalDist().inv_cdf(max(q, 1e-9)) for q in quantiles])
    log_uniform = rng.uniform(math.log(noise.low), math.log(noise.high), count)
    logs = np.where(rng.random(count) < noise.uniform_share, log_uniform, log_normal)
    return torch.from_numpy(np.exp(logs).clip(noise.low, noise.high)).float()


def learning_rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Linear warm-up, flat, linear decay to zero over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1.0, decay * steps))
