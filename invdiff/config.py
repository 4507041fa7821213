"""The schema of configs/*.yaml, and the only place where a name becomes a class."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from deepinv.physics import Physics
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

import operators
from invdiff import forward, posterior
from invdiff.diffusion import integrators, schedules
from invdiff.errors import InputError
from invdiff.machine import out_of_memory
from invdiff.mri.settings import ScanSettings
from invdiff.own_code import PYTHON, file_of, own_operator
from invdiff.own_samplers import own_sampler, plain_fields
from invdiff.posterior import Sampler
from invdiff.validation import model_of, nearest, validate

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
FOUND = "auto"              # a blur's boundary, or width, that the measurement is to tell
WIDTHS = {"gaussian_blur": "sigma", "defocus_blur": "radius"}
Format = Literal["nifti", "complex", "dicom", "fastmri", "montage"]


def _file(name: str) -> str:
    if not name.strip():
        raise ValueError(f"expected the name of a file, got {name!r}")
    return name


File = Annotated[str, AfterValidator(_file)]


class RunConfig(BaseModel):
    """One `invdiff restore` or `invdiff simulate`: the schema of configs/TASK.yaml.

    `operator`, `sampler` and its parts are mappings with a `name` and parameters, or the name alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(description="a label of your choice, which names the results")
    operator: dict[str, Any]
    sigma_y: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] | None = None
    prior: str = "natural"
    sampler: dict[str, Any]
    samples: int = Field(4, ge=1)
    antithetic: bool = False            # neighbours from noise of opposite sign: a better mean from fewer samples
    seed: int = Field(0, ge=0, lt=2**63)
    input: File | None = None
    truth: File | None = None
    start: File | None = None           # an image to begin from, instead of noise; see sampler.start_sigma
    size: tuple[PositiveInt, PositiveInt] | None = None     # (H, W), for an input that does not tell the image's size
    device: str = "auto"
    precision: str = Field("fp32", pattern="^(fp32|bf16)$")
    batch_size: int | None = Field(None, ge=1)
    calibration: File | None = None     # a file of `invdiff calibrate`; the one of the task or beside the config, if not said
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

    @property
    def files(self) -> list[str]:
        """Those that the run reads, but for priors: a measurement, a mask, the module of a user's own operator ..."""
        operator = [self.operator.get(name) for name in ("kernel", "mask", "trajectory")]
        own = [str(file) for part in (self.operator, self.sampler) if (file := file_of(str(part.get("name"))))]
        return [name for name in (self.input, self.truth, self.start, self.calibration, *operator, *own)
                if name and isinstance(name, str)]


def build_operator(spec: Mapping[str, Any], img_size: Sequence[int]) -> Physics:
    """The operator of a spec such as {"name": "gaussian_blur", "sigma": 2.0}. Raises InputError."""
    make, parameters = _operator(spec)
    if spec["name"] in SCANS:
        raise InputError(f"operator {spec['name']}: is made from a scan, slice by slice, and not from an image's size")
    with faults_told("operator"):
        made = make(img_size, **dict(parameters))
    if not isinstance(made, Physics):
        raise InputError(f"operator {spec['name']}: expected it to make a deepinv Physics, got {type(made).__name__}")
    return made


@contextmanager
def faults_told(where: str) -> Iterator[None]:
    """What an operator raises, but for want of memory, as an InputError that begins with `where`."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{where}: {' '.join(str(error).split()).replace('img_size', 'the image', 1)}") from error


def block_side(spec: Mapping[str, Any]) -> int:
    """Of an operator that takes an image in square blocks of pixels, and measures a pixel of each, their side; else 1. Raises
    InputError."""
    make, parameters = _operator(spec)
    name = getattr(make, "block_side", None)
    if name is not None and name not in type(parameters).model_fields:
        raise InputError(f"operator {spec['name']}: its block_side is {name!r}, which is none of its parameters")
    side = 1 if name is None else getattr(parameters, name)
    if side < 1:
        raise InputError(f"operator.{name}: expected a whole number >= 1, got {side}")
    return int(side)


def build_sampler(spec: Mapping[str, Any], where: str = "sampler") -> Sampler:
    """The sampler of a spec such as {"name": "dps", "steps": 500, "integrator": {"name": "ddim"}}, or of python:MODULE:NAME, a
    user's own. Raises InputError, which begins with `where`."""
    name = str(spec.get("name"))
    known, given = _named(spec, known_samplers(name), where, [f"{PYTHON}MODULE:NAME"])
    begun = own_sampler(name).fields if name.startswith(PYTHON) else {}
    for part in PARTS:
        value, default = given.get(part), begun.get(part, known.model_fields[part].default)
        if isinstance(value, str | Mapping):
            given[part] = build_part(part, value, default, f"{where}.{part}")
    return validate(known, begun | given, where)


def known_samplers(name: object) -> dict[str, type[Sampler]]:
    """Samplers by name: ours, and `name` itself if that is python:MODULE:NAME, whose module is imported. Raises InputError."""
    own = str(name)
    return SAMPLERS | ({own: own_sampler(own).model} if own.startswith(PYTHON) else {})


def build_part(part: str, spec: str | Mapping[str, Any], default: BaseModel, where: str) -> Any:
    """An integrator or a schedule of a spec such as "ddim" or {"name": "ddim", "eta": 0.5}; without a name, of the default's
    kind. Raises InputError."""
    spec = {"name": spec} if isinstance(spec, str) else {"name": name_of(default, PARTS[part])} | dict(spec)
    model, rest = _named(SHORT.get(str(spec["name"]), {}) | spec | {"name": _long_name(str(spec["name"]))}, PARTS[part], where,
                         SHORT if part == "integrator" else ())
    return validate(model, rest, where)


def _long_name(name: str) -> str:
    return str(SHORT.get(name, {}).get("name", name))


def describe(sampler: Sampler, name: str | None = None) -> dict[str, Any]:
    """The spec of a sampler, with every parameter: `build_sampler(describe(s)) == s`. name: that of a user's own."""
    spec = {"name": name or name_of(sampler, SAMPLERS), **plain_fields(sampler)}
    for part, table in PARTS.items():
        value = getattr(sampler, part)
        spec[part] = {"name": name_of(value, table), **value.model_dump()}
        if name and type(value) not in table.values():      # its own default, which no config can name
            del spec[part]
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


def name_of(thing: object, table: Mapping[str, Any]) -> str:
    """What a config calls it; of a class that none can name, the class's name."""
    return next((name for name, kind in table.items() if type(thing) is kind), type(thing).__name__)


def operator_parameters(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with every default filled in, of plain values that a file can hold; a width that is to be found stays `auto`.
    Raises InputError."""
    found = {key: FOUND for key in (unknown_width(spec),) if key}
    _, parameters = _operator({key: value for key, value in spec.items() if key not in found})
    return {"name": spec["name"], **parameters.model_dump(mode="json"), **found}


def unknown_width(spec: Mapping[str, Any]) -> str | None:
    """The key of a blur's width that the measurement is to tell, if there is one."""
    key = WIDTHS.get(str(spec.get("name")))
    return key if key and spec.get(key) == FOUND else None


def _operator(spec: Mapping[str, Any]) -> tuple[Callable[..., Any], BaseModel]:
    """What makes the operator of a spec, and its parameters."""
    make, given = _named(spec, known_operators(spec.get("name")), "operator", [f"{PYTHON}MODULE:NAME"])
    return make, validate(model_of(make), given, f"operator {spec['name']}")


def known_operators(name: object) -> dict[str, Callable[..., Any]]:
    """What makes an operator, by name: of ours, of scans', and of `name` itself if that is python:MODULE:NAME, a user's own,
    whose module is imported. Raises InputError."""
    own = str(name)
    return OPERATORS | SCANS | ({own: own_operator(own)} if own.startswith(PYTHON) else {})
