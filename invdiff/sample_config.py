"""What `invdiff sample` and `invdiff evaluate` draw: its schema, with a prior's own defaults, and the drawing of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveFloat, PositiveInt

from invdiff.config import build_part
from invdiff.diffusion.integrators import DPMSolverPP, Integrator
from invdiff.diffusion.schedules import Karras
from invdiff.errors import InputError
from invdiff.priors import load_prior
from invdiff.priors.conditional import Interval, class_number
from invdiff.priors.facts import own_sampling
from invdiff.sampling import Samples, check_solver, sample
from invdiff.validation import override, validate


class SampleConfig(BaseModel):
    """Images to draw from a prior.

    solver, schedule: a name, or a mapping with a `name` and parameters. The default solver draws new noise at each step, and
        later steps mend what the network did wrong in earlier ones.
    steps: without them, as many as the solver wants, 20 or hundreds.
    class_: a class by number or name; "each", which is the default where a prior knows classes, lets them take turns, and
        "any" tells the prior none.
    guidance_interval: the noise levels at which guidance acts, lowest and highest; without it, all.
    sigma_min, sigma_max: without them, the range that the prior was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    prior: str
    count: PositiveInt = 64
    solver: str | dict[str, Any] = "dpmpp_2m_sde"
    steps: PositiveInt = 20
    schedule: str | dict[str, Any] = "karras"
    sigma_min: PositiveFloat | None = None
    sigma_max: PositiveFloat | None = None
    class_: str = Field("each", alias="class", coerce_numbers_to_str=True)
    guidance: FiniteFloat = 1.0
    guidance_interval: Interval | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    batch_size: PositiveInt | None = None
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def solver_name(self) -> str:
        return _solver(self.solver)["name"]

    def integrator(self) -> Integrator:
        """The solver. Raises InputError."""
        return build_part("integrator", self.solver, DPMSolverPP(), "solver")


def sample_config(given: Mapping[str, Any], assignments: Sequence[str] = ()) -> tuple[SampleConfig, Any]:
    """The config of what was given, and the prior it names. What was not given is what the prior's card says of its own
    sampling, as few-step priors' do, and the default where it says nothing.

    Raises InputError: a key or value that is wrong, or a solver that cannot draw from the prior.
    """
    given = override({key: value for key, value in given.items() if value is not None}, assignments)
    if "prior" not in given:
        raise InputError("prior: give the prior to draw from; `invdiff priors` lists them")
    name = str(given["prior"])
    prior = load_prior(name)
    own = own_sampling(prior)
    usual = _solver(own.get("solver", SampleConfig.model_fields["solver"].default))
    asked = _solver(given.get("solver", {}))
    if asked.get("name", usual["name"]) == usual["name"]:
        given["solver"] = usual | asked
    config = validate(SampleConfig, {**own, **given}, "sample")
    check_solver(prior, config.integrator(), name)
    if "steps" not in own | given:
        config = config.model_copy(update={"steps": config.integrator().usual_steps})
    return config, prior


def _solver(spec: Any) -> dict[str, Any]:
    return dict(spec) if isinstance(spec, Mapping) else {"name": str(spec)}


def draw(config: SampleConfig, prior: Any, on_step: Callable[[Any], object] | None = None) -> Samples:
    """The images of a config. Raises InputError as `sample` does."""
    known = int(getattr(prior, "classes", 0))
    classes: list[int] | None = None
    if config.class_ not in ("each", "any"):
        classes = [class_number(prior, config.class_, config.prior)]
    elif known and config.class_ == "each":
        classes = [i % known for i in range(config.count)]
    drawn = sample(prior, config.count, config.integrator(), steps=config.steps,
                   schedule=build_part("schedule", config.schedule, Karras(), "schedule"), sigma_min=config.sigma_min,
                   sigma_max=config.sigma_max, size=config.size, classes=classes, guidance=config.guidance,
                   guidance_interval=config.guidance_interval, seed=config.seed, batch_size=config.batch_size,
                   device=config.device, precision=config.precision, on_step=on_step)
    drawn.report.update(prior=config.prior, config=config.model_dump(mode="json", by_alias=True))
    return drawn
