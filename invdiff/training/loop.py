"""A training run that can be killed at any moment: step k is a function of the state before it and of (seed, k)."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.diffusion.randomness import stream_seed
from invdiff.errors import InputError
from invdiff.machine import out_of_memory
from invdiff.priors.checkpoint import matching, read_tensors, write_tensors
from invdiff.priors.denoiser import EDMDenoiser
from invdiff.priors.facts import fingerprint
from invdiff.training.averages import Averages
from invdiff.training.batches import Batch, Batches, PatchSource, brightness_of
from invdiff.training.beginning import begin, build_denoiser, check_latents, weights_of
from invdiff.training.identity import check_length, check_others, check_told, difference, identity
from invdiff.training.latents import Latents
from invdiff.training.noise_levels import RunningLoss
from invdiff.training.objectives import Teacher
from invdiff.training.processes import Processes
from invdiff.training.settings import TrainSettings


@dataclass(frozen=True)
class Progress:
    """What one optimiser step saw, over all processes: what was minimised, and the weighted error per item with its noise
    level, both (B,)."""

    step: int
    loss: float
    losses: Tensor
    sigmas: Tensor


class Trainer:
    """Network, optimiser and moving averages of a run. `steps()` trains; `save` and `resume` carry it over a kill.

    In each of several processes there is one: they hold the same state, and share every batch.
    begun: is it to `resume`? Then the prior that it began with need not be there any more. `note` is what is to be said of how
    it begins.
    Raises InputError without accelerate, for batches with fewer patches than processes, and as `begin` does.
    """

    def __init__(self, settings: TrainSettings, patches: PatchSource, device: str | torch.device = "cpu", *,
                 begun: bool = False):
        self.settings = settings
        self.processes = Processes(device)
        self.device = self.processes.device
        self.step, self.seconds = 0, 0.0
        self.whole = True               # False while a step changes the state
        self.asked = self.stopping = False      # to end: this process has been asked; all know of it, after the same step
        self.log: list[dict] = []        # a line for each validation
        torch.manual_seed(settings.seed)
        self.images, self.coder = len(patches), patches.coder if isinstance(patches, Latents) else None
        self.denoiser = build_denoiser(settings)
        initial, self.note = (weights_of(settings.initial), "") if begun else begin(self.denoiser, settings, self.coder)
        self.denoiser.to(self.device, memory_format=torch.channels_last)
        self.averages = Averages(self.denoiser, settings.optimiser.ema_gammas)
        self.loss = settings.loss.objective(self.denoiser, settings.noise).to(self.device)
        head = list(self.loss.head.parameters()) if self.loss.head else []
        self.parameters = list(self.denoiser.parameters())
        self.trained = self.parameters + head
        o = settings.optimiser
        groups = [{"params": self.parameters, "weight_decay": o.weight_decay}, {"params": head, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=o.rate, betas=(0.9, 0.99), fused=True)
        self.losses = RunningLoss(settings.noise.low, settings.noise.high)
        self.batches, self.brightness = self._batches(patches), brightness_of(patches, min(settings.data.patch))
        self.others = self._others() | ({} if initial is None else {"initial": initial})
        if settings.compile:
            self.loss.compile()         # in place: the state's names stay as they are
        self.objective = self.processes.accelerator.prepare_model(self.loss, device_placement=False)

    @property
    def average(self) -> EDMDenoiser:
        """The denoiser with averaged weights, of the first length."""
        return self.averages.copies[0]

    def _others(self) -> dict[str, str]:
        """Fingerprints of the networks that are asked and not trained, by the setting that names each. Raises InputError for a
        teacher of other latents."""
        found = {"latent.autoencoder": fingerprint(self.coder)} if self.coder else {}
        for teacher in (module for module in self.loss.modules() if isinstance(module, Teacher)):
            check_latents("loss.teacher", teacher.name, teacher.prior, self.coder)
            found["loss.teacher"] = teacher.about()["teacher"]["weights"]
        return found

    def _batches(self, patches: PatchSource) -> Batches:
        data, where = self.settings.data, self.processes
        workers = data.workers if data.workers is not None else 0 if self.device.type == "cpu" else 2
        batches = Batches(patches, data.patch, self.settings.optimiser.batch, self.settings.seed, rank=where.rank,
                          processes=where.count, workers=workers, pinned=self.device.type == "cuda")
        fewest = min(batches.count(step) for step in range(len(data.patch)))
        if fewest < where.count:
            raise InputError(f"optimiser.batch: expected at least a patch for each of {where.count} processes at every size, "
                             f"got {fewest} at {max(data.patch)} pixels; make the batch larger")
        return batches

    def steps(self) -> Iterator[Progress]:
        """Train to the end, yielding after each step. Stop whenever you like: the state is whole at each yield.

        Raises InputError, in the midst of a step, when the loss is no longer a number, or memory does not do.
        """
        try:
            while self.step < self.settings.optimiser.steps:
                start = time.perf_counter()
                progress = self._advance()
                self.seconds += time.perf_counter() - start
                yield progress
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise InputError("memory: a step does not fit; take a smaller optimiser.batch, data.patch or network, or a machine "
                             "with more memory") from error
        finally:
            self.batches.close()

    def _advance(self) -> Progress:
        o, accelerator = self.settings.optimiser, self.processes.accelerator
        phase = self.settings.loss.phase(self.step, o.steps)
        if self.step == phase.start > 0:
            self._turn()
        batch = self.batches.get(self.step, o.steps)
        sigma, weight = self._levels(batch)
        x0, noise, mine, weight = (t.to(self.device, non_blocking=True) for t in (
            batch.x0, batch.noise, sigma[self.batches.mine], weight[self.batches.mine]))
        for group in self.optimiser.param_groups:
            group["lr"] = o.rate * learning_rate_factor(self.step - phase.start, len(phase), o.warmup, o.decay)
        self.optimiser.zero_grad(set_to_none=True)
        seed_dropout(stream_seed(self.settings.seed, self.step, self.processes.rank), self.device)
        self.loss.at(self.step, o.steps)
        with self._autocast():
            minimised, losses = self.objective(x0, noise, mine, None if batch.classes is None else
                                               batch.classes.to(self.device))
        # processes average their gradients, and shares may differ by one patch: the sum of theirs is the mean of the batch
        loss = (minimised * weight).sum() * self.processes.count / batch.count
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(self.parameters, o.clip)
        self.whole = False              # until here the state was the last step's
        self.optimiser.step()
        progress = self._progress(loss.detach(), losses.detach(), sigma)
        if not math.isfinite(progress.loss):
            raise InputError(f"step {progress.step}: the loss is {progress.loss}; start anew with a lower optimiser.rate, a "
                             "longer optimiser.warmup or precision=fp32, and see that the data hold numbers only")
        self.step += 1
        self.averages.update(self.parameters, self.step - phase.start)
        self.losses.update(progress.losses.double().numpy(), sigma.double().numpy())
        self.whole = True
        return progress

    def _turn(self) -> None:
        """Begin a phase: from the average that the last one ended with, and with a new optimiser."""
        self.whole = False
        self.loss.turn(self.average)
        self.denoiser.load_state_dict(self.average.state_dict())
        self.optimiser.state.clear()

    def _levels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Noise levels of the whole batch and their weights, (count,) float32."""
        s = self.settings
        sigma, weight = s.loss.draw(s.noise, batch.count, batch.rng, self.step, s.optimiser.steps, self.losses)
        return torch.from_numpy(sigma).float(), torch.from_numpy(weight).float()

    def _progress(self, loss: Tensor, losses: Tensor, sigma: Tensor) -> Progress:
        shares = torch.zeros(len(sigma) + 2, dtype=torch.float32, device=self.device)
        shares[:-2][self.batches.mine] = losses.float()
        shares[-2] = loss / self.processes.count
        shares[-1] = float(self.asked)
        everyone = self.processes.total(shares).cpu()
        self.stopping = bool(everyone[-1])
        return Progress(self.step + 1, float(everyone[-2]), everyone[:-2], sigma)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _modules(self) -> dict[str, torch.nn.Module]:
        """The modules of the state, by the names that a file knows them by."""
        averages = {f"average{i or ''}": average for i, average in enumerate(self.averages.copies)}
        return {"net": self.denoiser, **averages, **self.loss.kept()}

    def save(self, path: str | Path) -> None:
        """Everything that the next step depends on, in one safetensors file, written whole or not at all. Raises InputError
        where it cannot be written, and for weights that are not finite."""
        tensors = {f"{name}.{k}": v for name, module in self._modules().items() for k, v in module.state_dict().items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items()}
        tensors |= {f"losses.{k}": torch.from_numpy(getattr(self.losses, k)) for k in ("squares", "seen")}
        state = {"step": self.step, "seconds": self.seconds, "log": self.log, "settings": identity(self.settings),
                 "others": self.others, "images": self.images, "brightness": self.brightness,
                 "decay": self.settings.optimiser.decay}
        write_tensors(path, {k: v.cpu().contiguous() for k, v in tensors.items()}, {"state": json.dumps(state)})

    def resume(self, path: str | Path) -> None:
        """Go on from `save`. Raises InputError if the file is damaged, or belongs to a run with other settings, another
        teacher, autoencoder or beginning, on other images, or of more steps."""
        tensors, metadata = read_tensors(path)
        with matching(path, "the state of a training"):
            self._take(path, tensors, json.loads(metadata["state"]))

    def _take(self, path: str | Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        if why := difference(state.get("settings"), self.settings):
            raise InputError(f"{path}: belongs to a run with other settings ({why}); use another --output or delete it")
        check_length(path, int(state["step"]), self.settings)
        check_others(path, state.get("others", {}), self.others)        # states of the first versions have none
        check_told(path, state, self.settings, self.images, self.brightness)
        self.others |= state.get("others", {})
        if bad := [name for name, value in tensors.items() if not bool(value.isfinite().all())]:
            raise ValueError(f"{bad[0]} holds NaN or infinity")
        for name, module in self._modules().items():
            module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".")
                # in the parameter's memory format, which a file forgets: the fused optimiser reads both in storage order
                kept = torch.empty_like(self.trained[int(index)]).copy_(value) if value.ndim else value
                if kept.shape != value.shape:
                    raise ValueError(f"{key} is of another shape than its weights")
                moments.setdefault(int(index), {})[name] = kept
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if "losses.seen" in tensors:        # states of the first version have none
            self.losses.squares, self.losses.seen = (tensors[f"losses.{k}"].numpy().copy() for k in ("squares", "seen"))
        self.step, self.seconds, self.log = int(state["step"]), float(state["seconds"]), list(state["log"])


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed what a network draws in training. `torch.manual_seed` would do, but looks at every backend, for milliseconds."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        getattr(torch, device.type).manual_seed(seed)


def learning_rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Linear warm-up, flat, linear decay to zero over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1.0, decay * steps))
