"""`invdiff train`: what the terminal shows of a run."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import Device, progress_bar, say, to_terminal

_FORGET = 0.02      # share of a new item in a band's running loss


def train(config: Annotated[Path, typer.Argument(help="A training config, such as configs/train/natural.yaml.")],
          data: Annotated[Path | None, typer.Option(help="Folder of images or HDF5 file; overrides data.path.")] = None,
          assign: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. loss.kind=v; repeatable.")] = None,
          output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: runs/NAME]")] = None,
          device: Device = None) -> None:
    """Train a prior, or what the config's `kind` says. Started again with the same output folder, a prior goes on where it was
    stopped or killed; an autoencoder or a classifier that was, begins anew.

    On several GPUs: torchrun --nproc-per-node GPUS --no-python invdiff train CONFIG.
    """
    from invdiff.machine import find_device
    from invdiff.training.stages import RUNS, not_stated, train_stages

    given = [*(assign or []), *([f"data.path={json.dumps(str(data), ensure_ascii=False)}"] if data else [])]
    stages = train_stages(config, given)
    if silent := not_stated(config, given):
        _say(f"the card says \"not stated\" of these data, as {config.name} describes others; state it with "
             + " ".join(f"--set {key}=..." for key in silent))
    settings = stages[-1]
    where = str(find_device(device or "auto"))
    folder = output or Path("runs") / settings.name
    if other := next((train for model, train in RUNS.values() if isinstance(settings, model)), None):
        try:
            path, steps = _with_bar(settings, lambda show: other(settings, folder, where, on_step=show, on_remark=_say))
        except KeyboardInterrupt:
            _say(f"nothing is kept: the training of this {settings.kind} cannot go on from the middle; the same command begins "
                 "anew", err=True)
            raise
        said = f"the {settings.kind}; log.jsonl beside it" if steps else "already finished; nothing to do"
        typer.echo(f"{path}: {said}")
        return
    _run_stages(stages, folder, where)


def _run_stages(stages: Sequence[Any], output: Path, device: str) -> None:
    from invdiff.training.processes import leave
    from invdiff.training.run import finished
    from invdiff.training.stages import unfinished

    told = set[str]()       # data that something was said of, which is said once
    try:
        for number, settings, folder in unfinished(stages, output):
            if len(stages) > 1:
                _say(f"stage {number} of {len(stages)}")
            path = folder / f"{settings.name}.safetensors"
            if step := finished(settings, folder):
                said = f"already finished at step {step}; nothing to do"
            else:
                _run_stage(View(settings, remarks=settings.data.path not in told), settings, folder, device)
                told.add(settings.data.path)
                sheets = f", samples/ and {path.stem}.png" if settings.monitor.sheet else ""
                said = f"the prior; log.jsonl{sheets} beside it"
    finally:
        leave()
    _say(f"{path}: {said}")


def _run_stage(view: "View", settings: Any, folder: Path, device: str) -> None:
    from invdiff.training.identity import saved_state
    from invdiff.training.run import train as run

    state = folder / "state.safetensors"
    try:
        with closing(view):
            run(settings, folder, device, on_step=view.show, on_call=view.measure)
    except KeyboardInterrupt:
        if step := saved_state(state, settings).get("step"):
            _say(f"{state}: the state after step {step}; the same command goes on from there", err=True)
        raise


def _say(text: str, err: bool = False) -> None:
    """A line, of the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        if err:
            typer.echo(text, err=True)
        else:
            say(text)


def _with_bar(settings: Any, work: Callable[[Callable[[int, float], object]], Path]) -> tuple[Path, int]:
    """`work(show)` and the steps it took, with a bar from the first of them on, that `show(steps done, loss)` moves. In a file
    instead of a terminal: ten lines."""
    from rich.progress import TextColumn, TimeRemainingColumn

    taken = 0
    with progress_bar("steps", TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.4f}"), transient=False) as bar:
        line = bar.add_task(settings.name, total=settings.steps, loss=float("nan"), visible=False)

        def show(done: int, loss: float) -> None:
            nonlocal taken
            taken = done
            bar.update(line, completed=done, loss=loss, visible=True)
            if bar.disable and done % -(-settings.steps // 10) == 0:
                say(f"step {done}: loss {loss:.4f}")

        return work(show), taken


class View:
    """A bar, and under it the loss by noise band and the last validation; at the end another one, of what the card says of the
    prior's errors. In a file instead of a terminal: a line for each validation, and one as that begins. Nothing until the first
    step, which only the first of several processes shows. remarks: say, as a run begins, what is to be said of its images?"""

    def __init__(self, settings: Any, remarks: bool = True):
        from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.bar = progress_bar("{task.fields[unit]}", TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.steps = settings.optimiser.steps
        self.line = self.bar.add_task(settings.name, total=self.steps, unit="steps")
        self.measuring: Any = None
        self.live: Any = None
        self.shown, self.validated, self.remarks = False, 0, remarks
        self.losses: list[float | None] = []
        self.log: Sequence[dict] = []

    def show(self, progress: Any, trainer: Any) -> None:
        """Take in a step."""
        if not self.shown:
            self._begin(progress, trainer)
        self._mix(progress)
        if len(trainer.log) > self.validated:
            self.validated = len(trainer.log)
            if self.bar.disable:
                say(_sentence(trainer.log[-1]))
        self.bar.update(self.line, completed=progress.step)

    def measure(self, done: int, calls: int) -> None:
        """Take in how many of the network calls are done that measure the trained prior."""
        if self.measuring is None:
            if not self.shown:
                self.bar.update(self.line, completed=self.steps)
                say(f"already trained to step {self.steps}; only the prior is written anew")
            if self.bar.disable:
                say(f"measuring the prior's errors, in {calls} network calls")
            self.measuring = self.bar.add_task("measuring", total=calls, unit="network calls")
            self._live()
        self.bar.update(self.measuring, completed=done)

    def _begin(self, progress: Any, trainer: Any) -> None:
        from invdiff.training.remarks import remark

        self.shown, self.log = True, trainer.log
        self.validated = sum(line["step"] < progress.step for line in trainer.log)      # in earlier sessions
        if progress.step > 1:
            say(f"going on from step {progress.step - 1}")
        else:
            for said in (trainer.note, remark(trainer.batches.patches) if self.remarks else ""):
                if said:
                    say(said)
        self.bar.reset(self.line, completed=progress.step - 1)      # what is left is judged by this session's speed
        self._live()

    def _live(self) -> None:
        from rich.live import Live

        if self.bar.console.is_terminal and not self.live:
            self.live = Live(console=self.bar.console, refresh_per_second=4, get_renderable=self._picture,
                             redirect_stdout=to_terminal())
            self.live.start()

    def _mix(self, progress: Any) -> None:
        from invdiff.training.monitor import loss_by_band

        new = loss_by_band(progress.losses, progress.sigmas)
        old = self.losses or [None] * len(new)
        self.losses = [b if a is None else a if b is None else a + _FORGET * (b - a) for a, b in zip(old, new, strict=True)]

    def _picture(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        from invdiff.training.monitor import band_names

        if not self.shown:
            return self.bar
        bands = Table("noise", *band_names(), box=None, pad_edge=False)
        bands.add_row("loss", *("" if value is None else f"{value:.4f}" for value in self.losses))
        if not self.log:
            return Group(self.bar, bands)
        last = self.log[-1]
        held = Table(f"held back, step {last['step']}", *(f"sigma {level}" for level in last["psnr"]), box=None, pad_edge=False)
        held.add_row("PSNR (dB)", *(f"{value:.2f}" for value in last["psnr"].values()))
        return Group(self.bar, bands, held)

    def close(self) -> None:
        """Leave the last picture on the screen."""
        if self.live:
            self.live.stop()


def _sentence(line: dict) -> str:
    psnr = ", ".join(f"{value:.2f} dB at {level}" for level, value in line["psnr"].items())
    return f"step {line['step']}, {line['seconds']:.0f} s: loss {line['loss']:.4f}; {psnr}"
