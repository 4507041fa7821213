"""The schema of configs/*.yaml, and the only place where a name becomes a class."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from deepinv.physics import Physics
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, create_model

import operators
from invdiff import forward, posterior
from invdiff.diffusion import integrators, schedules
from invdiff.errors import InputError
from invdiff.evaluation.mri_baselines import BASELINES
from invdiff.mri.settings import ScanSettings
from invdiff.paths import bundled
from invdiff.posterior import Sampler
from invdiff.validation import keys_of, nearest, override, read_yaml, said_of, validate

OPERATORS: dict[str, Callable[..., Physics]] = {
    "denoising": operators.Denoising,
    "gaussian_blur": forward.gaussian_blur,
    "motion_blur": forward.motion_blur,
    "uniform_blur": forward.uniform_blur,
    "defocus_blur": forward.defocus_blur,
    "kernel_blur": forward.kernel_blur,
    "random_inpainting": forward.random_inpainting,
    "row_inpainting": forward.row_inpainting,
    "half_inpainting": forward.half_inpainting,
    "box_inpainting": forward.box_inpainting,
    "mask_inpainting": forward.mask_inpainting,
    "colorization": operators.Colorization,
    "super_resolution": operators.SuperResolution,
    "bicubic_super_resolution": operators.BicubicSuperResolution,
    "gaussian_super_resolution": operators.GaussianSuperResolution,
    "compressed_sensing": operators.CompressedSensing,
    "dct_sensing": operators.DCTSensing,
    "gaussian_sensing": operators.GaussianSensing,
}
SCANS: dict[str, type[BaseModel]] = {"mri": ScanSettings}        # operators that a scan makes, and not the image's size
SAMPLERS: dict[str, type[Sampler]] = {
    "moment_matching": posterior.MomentMatching,
    "pigdm": posterior.PiGDM,
    "diffpir": posterior.DiffPIR,
    "dps": posterior.DPS,
    "ddrm": posterior.DDRM,
    "ddnm": posterior.DDNM,
    "dds": posterior.DDS,
    "ilvr": posterior.ILVR,
    "daps": posterior.DAPS,
    "split_gibbs": posterior.SplitGibbs,
    "red_diff": posterior.REDDiff,
    "annealed_langevin": posterior.AnnealedLangevin,
    "twisted_smc": posterior.TwistedSMC,
    "psld": posterior.PSLD,
    "resample": posterior.ReSample,
}
PARTS: dict[str, dict[str, type[BaseModel]]] = {    # parts of a sampler that have a name of their own
    "integrator": {"ddim": integrators.DDIM, "ddpm": integrators.DDPM, "renoise": integrators.Renoise,
                   "heun": integrators.Heun, "rk45": integrators.RK45, "dpm_solver": integrators.DPMSolver,
                   "dpm_solver_adaptive": integrators.DPMSolverAdaptive, "dpm_solver_pp": integrators.DPMSolverPP,
                   "dpmpp_2s": integrators.DPMSolverPP2S, "dpmpp_3m": integrators.DPMSolverPP3M,
                   "edm_stochastic": integrators.EDMStochastic, "euler_maruyama": integrators.EulerMaruyama,
                   "predictor_corrector": integrators.PredictorCorrector, "langevin": integrators.Langevin,
                   "consistency": integrators.Consistency,
                   "euler": integrators.DDIM, "dpmpp_2m": integrators.DPMSolverPP},      # by other names
    "schedule": {"karras": schedules.Karras, "ddpm_linear": schedules.DDPMLinear, "cosine": schedules.Cosine,
                 "sigmoid": schedules.Sigmoid, "flow_matching": schedules.FlowMatching, "log_linear": schedules.LogLinear,
                 "linear": schedules.Linear},
}

SHORT: dict[str, dict[str, Any]] = {                # integrators with a parameter set, by the names they go by
    "dpm_solver_1": {"name": "dpm_solver", "order": 1},
    "dpm_solver_2": {"name": "dpm_solver", "order": 2},
    "dpm_solver_3": {"name": "dpm_solver", "order": 3},
    "dpmpp_2m_sde": {"name": "dpm_solver_pp", "eta": 1.0},
}
DEFAULT_SAMPLER = "moment_matching"
SAMPLE_ACCELERATION = 4.0
Format = Literal["nifti", "complex", "dicom", "fastmri", "montage"]


class RunConfig(BaseModel):
    """One `invdiff restore` or `invdiff simulate`: the schema of configs/TASK.yaml.

    `operator`, `sampler` and its parts are mappings with a `name` and parameters, or the name alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    operator: dict[str, Any]
    sigma_y: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] | None = None
    prior: str = "natural"
    sampler: dict[str, Any]
    samples: int = Field(4, ge=1)
    antithetic: bool = False            # neighbours from noise of opposite sign: a better mean from fewer samples
    seed: int = Field(0, ge=0, lt=2**63)
    input: str | None = None
    truth: str | None = None
    start: str | None = None            # an image to begin from, instead of noise; see sampler.start_sigma
    size: tuple[PositiveInt, PositiveInt] | None = None     # (H, W), for an input that does not tell the image's size
    device: str = "auto"
    precision: str = Field("fp32", pattern="^(fp32|bf16)$")
    batch_size: int | None = Field(None, ge=1)
    calibration: str | None = None      # a file of `invdiff calibrate`; the one of the task or beside the config, if not said
    other_priors: tuple[str, ...] = ()  # also restore under these, to see how much of the image is the prior's
    # of scans alone
    slices: tuple[NonNegativeInt, NonNegativeInt] | None = None         # first and last; all by default
    baselines: tuple[str, ...] = ()                                     # classical reconstructions, to compare with
    write: tuple[Format, ...] = ("nifti", "montage")                    # besides result.h5 and the report
    keep_identity: bool = False                                         # who was scanned, in what is written

    @property
    def is_scan(self) -> bool:
        """Is it raw k-space that is restored, slice by slice?"""
        return self.operator["name"] in SCANS


def tasks() -> dict[str, Path]:
    """The bundled tasks, by name."""
    return {path.stem: path for path in sorted(bundled("configs").glob("*.yaml"))}


def calibration_beside(config: str | Path) -> Path:
    """Where the calibration of a config in a file is kept: deblur.yaml has deblur.calibration.json."""
    return Path(config).with_name(f"{Path(config).stem}.calibration.json")


def run_config(task: str | None = None, path: str | Path | None = None, assignments: Sequence[str] = ()) -> RunConfig:
    """A task by name or a config by path, with `--set` assignments, every default filled in. Raises InputError.

    A bundled task's sigma_y is the noise to simulate. It is nobody's measurement: with an `input` it must be given.
    """
    if (task is None) == (path is None):
        raise InputError(f"expected a task or a config, one of the two; tasks: {', '.join(tasks())}")
    assignments = [_by_name(assignment) for assignment in assignments]
    own: dict[str, Any] = {}
    if path is None:
        if task not in tasks():
            raise InputError(f"task: unknown task {task!r}; {nearest(str(task), tasks())}")
        path = tasks()[str(task)]
        noise_given = any(a.partition("=")[0].strip() == "sigma_y" for a in assignments)
    else:
        noise_given = True
        own = {"calibration": str(beside.resolve())} if (beside := calibration_beside(path)).is_file() else {}
    given = {"sampler": DEFAULT_SAMPLER} | own | read_yaml(path)
    given = {k: {"name": v} if k in ("operator", "sampler") and isinstance(v, str) else v for k, v in given.items()}
    kept = given | _for_another("operator", given, assignments) | _for_another("sampler", given, assignments)
    config = said_of(path, given, override(kept, assignments), _filled)
    if config.is_scan:
        _check_scan(config)
    else:
        _check_image(config, str(path), noise_given)
    return config


def _filled(data: Mapping[str, Any]) -> RunConfig:
    """The RunConfig of what a file and a command line say, its parts with every parameter."""
    _check_prefixes(data)
    config = validate(RunConfig, data, "")
    if config.input is not None and config.truth is not None:
        raise InputError("input and truth: give a measurement (--input) or a clean image (--truth), not both")
    operator = _operator_parameters(config.operator)
    if operator["name"] in SCANS and config.input is None and config.truth is None and operator["acceleration"] is None:
        operator["acceleration"] = SAMPLE_ACCELERATION                  # the bundled scan is fully sampled
    return config.model_copy(update={"operator": operator, "sampler": describe(build_sampler(config.sampler))})


def _check_prefixes(data: Mapping[str, Any]) -> None:
    """Raise for a parameter of the operator or of the sampler that is given without its prefix."""
    tables: dict[str, Mapping[str, Any]] = {"operator": OPERATORS | SCANS, "sampler": SAMPLERS}
    for part, table in tables.items():
        spec = data.get(part)
        make = table.get(str(spec.get("name"))) if isinstance(spec, Mapping) else None
        known = keys_of(_model_of(make)) if make else []
        if bare := next((key for key in data if key in known and key not in RunConfig.model_fields), None):
            raise InputError(f"unknown key {bare!r}; did you mean '{part}.{bare}'?")


def _by_name(assignment: str) -> str:
    """`sampler.name=dps` of `sampler=dps`."""
    key, _, value = (text.strip() for text in assignment.partition("="))
    return f"{key}.name={value}" if key in ("operator", "sampler") and value.isidentifier() else assignment


def _for_another(part: str, given: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """{part: what is left of its spec in `given`} if `--set PART.name=` changes the name: an operator's parameters that the new
    one has, too; a sampler's are its own. Else nothing."""
    name = next((value.strip().strip("'\"") for key, _, value in (a.partition("=") for a in reversed(assignments))
                 if key.strip() == f"{part}.name"), None)
    spec = given.get(part)
    if not name or not isinstance(spec, Mapping) or name == spec.get("name"):
        return {}
    known = inspect.signature(OPERATORS[name]).parameters if part == "operator" and name in OPERATORS else {}
    return {part: {key: value for key, value in spec.items() if key in known}}


def _check_scan(config: RunConfig) -> None:
    for name in ("size", "start", "other_priors"):
        if getattr(config, name):
            raise InputError(f"{name}: belongs to images; leave it out for a scan")
    if config.truth is not None and config.sigma_y in (None, "auto"):
        raise InputError("sigma_y: the noise of a simulated scan is to be given, for example --set sigma_y=0.01 (the image's "
                         "peak is 1; 0 is noiseless)")
    for name in config.baselines:
        if name not in BASELINES:
            raise InputError(f"baselines: unknown name {name!r}; {nearest(name, BASELINES)}")


def _check_image(config: RunConfig, path: str, noise_given: bool) -> None:
    for name in ("slices", "baselines", "write", "keep_identity"):
        if getattr(config, name) != RunConfig.model_fields[name].default:
            raise InputError(f"{name}: belongs to scans, the task mri; leave it out")
    if config.input is not None and not (noise_given and config.sigma_y is not None):
        raise InputError(f"sigma_y: the noise level of {config.input} is not known; give it, for example "
                         "--set sigma_y=0.02 (white is 1; 0 is noiseless), or have it estimated: --set sigma_y=auto")
    if config.size is not None and config.input is None:
        raise InputError("size: belongs to a measurement from a file; give --input, or leave it out")
    if config.sigma_y == "auto" and config.input is None:
        raise InputError("sigma_y: auto estimates the noise of an --input; to simulate, give a number")
    if config.sigma_y is None:
        raise InputError(f"{path}: sigma_y is missing; give the noise's standard deviation (white is 1; 0 is noiseless)")


def build_operator(spec: Mapping[str, Any], img_size: Sequence[int]) -> Physics:
    """The operator of a spec such as {"name": "gaussian_blur", "sigma": 2.0}. Raises InputError."""
    parameters = _operator_parameters(spec)
    if parameters["name"] in SCANS:
        raise InputError(f"operator {parameters['name']}: is made from a scan, slice by slice, and not from an image's size")
    try:
        return OPERATORS[parameters.pop("name")](img_size, **parameters)
    except ValueError as error:
        raise InputError(f"operator: {str(error).replace('img_size', 'the image', 1)}") from error


def build_sampler(spec: Mapping[str, Any]) -> Sampler:
    """The sampler of a spec such as {"name": "dps", "steps": 500, "integrator": {"name": "ddim"}}. Raises InputError."""
    known, parameters = _named(spec, SAMPLERS, "sampler")
    for part in PARTS:
        value = parameters.get(part)
        if isinstance(value, str | Mapping):
            parameters[part] = build_part(part, value, known.model_fields[part].default, f"sampler.{part}")
    return validate(known, parameters, "sampler")


def build_part(part: str, spec: str | Mapping[str, Any], default: BaseModel, where: str) -> Any:
    """An integrator or a schedule of a spec such as "ddim" or {"name": "ddim", "eta": 0.5}; without a name, of the default's
    kind. Raises InputError."""
    spec = {"name": spec} if isinstance(spec, str) else {"name": _name_of(default, PARTS[part])} | dict(spec)
    model, rest = _named(SHORT.get(str(spec["name"]), {}) | spec | {"name": _long_name(str(spec["name"]))}, PARTS[part], where,
                         SHORT if part == "integrator" else ())
    return validate(model, rest, where)


def _long_name(name: str) -> str:
    return str(SHORT.get(name, {}).get("name", name))


def describe(sampler: Sampler) -> dict[str, Any]:
    """The spec of a sampler, with every parameter: `build_sampler(describe(s)) == s`."""
    spec = {"name": _name_of(sampler, SAMPLERS), **sampler.model_dump(by_alias=True)}
    for part, table in PARTS.items():
        value = getattr(sampler, part)
        spec[part] = {"name": _name_of(value, table), **value.model_dump()}
    return spec


def _named(spec: Mapping[str, Any], table: Mapping[str, Any], where: str,
           also: Iterable[str] = ()) -> tuple[Any, dict[str, Any]]:
    """The table's entry for spec["name"], and the other keys; `also` are names to suggest beside the table's."""
    if spec.get("name") is None:
        raise InputError(f"{where}: name is missing; known: {', '.join(sorted(table))}")
    name = str(spec["name"])
    if name not in table:
        raise InputError(f"{where}: unknown name {name!r}; {nearest(name, [*table, *also])}")
    return table[name], {key: value for key, value in spec.items() if key != "name"}


def _name_of(thing: object, table: Mapping[str, Any]) -> str:
    return next(name for name, kind in table.items() if type(thing) is kind)


def _operator_parameters(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with every default filled in. Raises InputError."""
    make, given = _named(spec, OPERATORS | SCANS, "operator")
    return {"name": spec["name"], **validate(_model_of(make), given, f"operator {spec['name']}").model_dump()}


def _model_of(make: Callable[..., Any]) -> type[BaseModel]:
    """A sampler's or a scan's parameters are its own, an operator's those of its constructor, but for the image's size."""
    if isinstance(make, type) and issubclass(make, BaseModel):
        return make
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(make, eval_str=True).parameters.items():
        if name != "img_size" and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (parameter.annotation, default)
    return create_model("Operator", __config__=ConfigDict(extra="forbid"), **fields)
