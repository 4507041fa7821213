"""Options that several commands have, and what a task or a config becomes with them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Task = Annotated[str | None, typer.Option("--task", "-t", help="Bundled task; `invdiff tasks` lists them.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML config, instead of --task.")]
Truth = Annotated[str | None, typer.Option(help="Clean image: simulate a measurement of it, and score.")]
Assign = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. operator.sigma=1.6; repeatable.")]
Prior = Annotated[str | None, typer.Option(help="Shipped prior, .safetensors file, or FORMAT:WHAT.")]
Sampler = Annotated[str | None, typer.Option(help="Posterior sampler.")]
Samples = Annotated[int | None, typer.Option(help="Posterior samples to draw.")]
Solver = Annotated[str | None, typer.Option(help="ddim, ddpm, heun, dpmpp_2m, dpmpp_2m_sde ...")]
Steps = Annotated[int | None, typer.Option(help="Noise levels to visit.")]
Guidance = Annotated[float | None, typer.Option(help="Strength of guidance by the class; 1 is none.")]
Seed = Annotated[int | None, typer.Option(help="Random seed, 0 or larger.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps ...")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16, for the network.")]


def resolve(task: str | None, config: Path | None, assign: list[str] | None, given: dict[str, Any]) -> Any:
    """The RunConfig of a task or a config, with options by key; of those and `--set`, the latter counts. Raises InputError."""
    from invdiff.config import run_config

    options = [f"{key}={_yaml(value)}" for key, value in given.items() if value is not None]
    return run_config(task, config, [*options, *(assign or [])])


def _yaml(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)      # JSON is YAML, and quotes names safely
