"""The schema of configs/benchmark/*.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from invdiff.benchmark.exact import Plan, quick_plan
from invdiff.benchmark.methods import resolved
from invdiff.config import SAMPLERS, SCANS, RunConfig, block_side, build_operator, faults_told
from invdiff.errors import InputError
from invdiff.evaluation.metrics import METRICS
from invdiff.paths import bundled
from invdiff.resolving import DEFAULT_SAMPLER, run_config, tasks
from invdiff.validation import nearest, override, read_yaml, said_of, validate

Named = str | dict[str, Any]
NonEmpty = Field(min_length=1)


class BenchmarkConfig(BaseModel):
    """Every method on every task, with every prior, on every image.

    images: a folder, an HDF5 file with a dataset `key`, or "sample" for photos that come along. In a file, null has them asked
        for.
    size: side of the central crop, pixels.
    tasks: names of bundled tasks, or mappings {name, operator, sigma_y}, which begin from the bundled task of that name if
        there is one.
    methods: names, or mappings {name, label, samples, and the method's own parameters}.
    samples: posterior samples of each image, where a method draws any. antithetic: in pairs of opposite noise, of the methods
        that can.
    metrics: of `metrics.METRICS`; what cannot be computed here is left out, and the report says so.
    pictures: how many images are shown in the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["images"] = "images"
    images: str = "sample"
    key: str = "test_jpeg"
    count: PositiveInt = 8
    size: int = Field(128, ge=16)
    tasks: Annotated[tuple[Named, ...], NonEmpty]
    priors: Annotated[tuple[str, ...], NonEmpty] = ("natural",)
    methods: Annotated[tuple[Named, ...], NonEmpty] = (DEFAULT_SAMPLER,)
    samples: PositiveInt = 4
    antithetic: bool = False
    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    metrics: Annotated[tuple[str, ...], NonEmpty] = ("psnr", "ssim", "nmse", "haarpsi")
    pictures: int = Field(1, ge=0)

    @property
    def full_tasks(self) -> list[dict[str, Any]]:
        """The tasks of a config from `benchmark_config`: name, operator with every parameter, sigma_y."""
        return [task for task in self.tasks if isinstance(task, dict)]

    @property
    def full_methods(self) -> list[dict[str, Any]]:
        """The methods of a config from `benchmark_config`: name, label, samples where given, every parameter."""
        return [method for method in self.methods if isinstance(method, dict)]


class ExactConfig(BaseModel):
    """Samplers against posteriors that are known; see `invdiff.benchmark.exact`.

    problems: random mixture problems for each pair of dimensions. samples: of each posterior. steps: of every sampler; without
    it, each one's own. quick: a small part of it, to see that it runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["exact"]
    samplers: Annotated[tuple[str, ...], NonEmpty]
    problems: PositiveInt = 10
    samples: int = Field(1000, ge=2)
    steps: PositiveInt | None = None
    quick: bool = False

    def plan(self) -> Plan:
        """What `exact.run` does. Raises InputError for a sampler that is not known, or draws latents."""
        for name in self.samplers:
            if name not in SAMPLERS:
                raise InputError(f"samplers: unknown name {name!r}; {nearest(name, SAMPLERS)}")
            if SAMPLERS[name].latents:
                raise InputError(f"samplers: {name} draws latents, and these posteriors are of images; leave it out")
        plan = Plan(list(self.samplers), self.problems, self.samples, self.steps)
        return quick_plan(plan) if self.quick else plan


KINDS: dict[str, type[BaseModel]] = {"images": BenchmarkConfig, "exact": ExactConfig}


def benchmarks() -> dict[str, Path]:
    """The bundled ones, by name."""
    return {path.stem: path for path in sorted(bundled("configs", "benchmark").glob("*.yaml"))}


def benchmark_config(which: str, assignments: Sequence[str] = (), data: str | None = None) -> BenchmarkConfig | ExactConfig:
    """A bundled config by name, or one by path, with `--set` assignments, every default filled in: operators and methods with
    all their parameters. data: images, instead of the config's. Raises InputError."""
    path = benchmarks().get(which, Path(which))
    if which not in benchmarks() and path.suffix not in (".yaml", ".yml"):
        raise InputError(f"benchmark: unknown name {which!r}; {nearest(which, benchmarks())}, or give the path of a .yaml file")
    own = read_yaml(path)
    given = override(own, assignments)
    if data is not None:
        if given.get("kind", "images") != "images":
            raise InputError(f"--data: the benchmark {which} takes no images; leave it out")
        given["images"] = data
    if given.get("images", "") is None:
        raise InputError(f"{which}: this benchmark is on images of your own; give a folder or an HDF5 file with --data")
    return said_of(path, own, given, _filled)


def _filled(data: Mapping[str, Any]) -> BenchmarkConfig | ExactConfig:
    kind = str(data.get("kind", "images"))
    if kind not in KINDS:
        raise InputError(f"kind: unknown kind {kind!r}; {nearest(kind, KINDS)}")
    config: Any = validate(KINDS[kind], data, "")
    if isinstance(config, ExactConfig):
        config.plan()
        return config
    for name in config.metrics:
        if name not in METRICS:
            raise InputError(f"metrics: unknown name {name!r}; {nearest(name, METRICS)}")
    full = [_task(spec, config.size) for spec in config.tasks]
    for what, names in (("priors", config.priors), ("metrics", config.metrics), ("tasks", [task["name"] for task in full])):
        if twice := [name for name in names if list(names).count(name) > 1]:
            raise InputError(f"{what}: {twice[0]!r} is there twice; once is enough, and another task needs another name")
    return config.model_copy(update={"tasks": tuple(full), "methods": tuple(resolved(config.methods))})


def _task(spec: str | Mapping[str, Any], size: int) -> dict[str, Any]:
    """{name, operator, sigma_y}, the operator with every parameter."""
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(given.pop("name", ""))
    if unknown := set(given) - {"operator", "sigma_y"}:
        raise InputError(f"tasks: {name}: unknown key {sorted(unknown)[0]!r}; expected name, operator and sigma_y")
    if name not in tasks() and not {"operator", "sigma_y"} <= set(given):
        raise InputError(f"tasks: unknown task {name!r}; {nearest(name, tasks())}, or give it an operator and a sigma_y")
    begun = run_config(name) if name in tasks() else None
    known = begun.operator if begun else {}
    asked: Any = given.get("operator", {})
    wanted: dict[str, Any] = {"name": asked} if isinstance(asked, str) else dict(asked)
    operator = wanted if wanted.get("name", known.get("name")) != known.get("name") else {**known, **wanted}
    if operator.get("name") in SCANS:
        raise InputError(f"tasks: {name}: scans are compared by python -m invdiff.experiments.scan_comparison; leave it out")
    sigma_y = given.get("sigma_y", begun.sigma_y if begun else None)
    checked = validate(RunConfig, {"task": name, "operator": operator, "sigma_y": sigma_y, "sampler": {}}, f"tasks: {name}")
    if not isinstance(checked.sigma_y, float):
        raise InputError(f"tasks: {name}: sigma_y: expected the noise's standard deviation, a number, got {checked.sigma_y!r}")
    with faults_told(f"tasks: {name}"):
        if size % (block := block_side(operator)):
            raise InputError(f"expected a size that is a multiple of the factor {block}, got {size}")
        build_operator(operator, (3, size, size))
    return {"name": name, "operator": operator, "sigma_y": checked.sigma_y}
