"""What a training run is made of: the schema of configs/train/*.yaml."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from invdiff.priors.networks import NetworkSettings, UNetSettings
from invdiff.training.losses import EDMLoss, LossSettings
from invdiff.training.noise_levels import LogNormal, NoiseSettings

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]       # of files, in the output folder


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(Frozen):
    """Where images come from: a folder, or an HDF5 dataset of encoded images or of arrays (N, H, W[, C]). `holdout` images,
    the last ones or, with `labels` by folders, of each class its share, are kept back for validation and for the card's error
    spectrum; the HDF5 dataset `test`, if one is named, is for the card's denoising table.

    With a network of two channels, `key` and `test` are complex images (N, 2, H, W), and `magnitudes` may name another
    HDF5 file, beside `path`, whose encoded grey images in `magnitudes_key` are given a smooth random phase. A share
    `contrast` of the patches has its contrast changed, as other sequences would.

    A network of one channel sees the brightness of images. With `labels`, or with one channel and images that are all as large
    as `patch`, they are taken whole, all of one size, the only one in `patch`. `labels` names a dataset of the HDF5 file, or
    an idx file of the folder, with the class of each image, or is "folders" where an image's folder is its class; a share
    `drop_labels` of the images is shown without its class, so that the prior can be guided (Ho & Salimans 2022). `flips`: is
    an image's mirror image as good?

    Steps take the sizes of `patch` in turn, in pixels; the batch is as many pixels for each. Any will do, and what the
    network's stride does not divide is padded for it, which takes as long as the next multiple.

    Decoded images stay in memory up to `cache_mb`; what does not fit is decoded when it is needed. `workers` threads make
    batches ahead of time: if nothing else is said, two for a GPU and none for a CPU, where a batch is made as its step begins.
    """

    path: str
    key: str = "train_jpeg"
    test: str | None = None
    holdout: int = Field(32, ge=1)
    patch: tuple[PositiveInt, ...] = Field((64,), min_length=1)
    scales: tuple[PositiveFloat, ...] = (1.0,)
    grey: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    labels: str | None = None
    class_names: tuple[str, ...] = ()
    drop_labels: float = Field(0.1, ge=0, le=1)
    flips: bool = True
    magnitudes: str | None = None
    magnitudes_key: str = "train_webp"
    cache_mb: int = Field(4000, ge=0)
    workers: int | None = Field(None, ge=0, le=64)
    description: str = ""
    licence: str = ""


class ImageSettings(Frozen):
    """The images of autoencoders and classifiers, all of one size: those of a folder and of all below, or what `key` names: an
    idx file or a folder in it, or a dataset of an HDF5 file (train_jpeg, if it is not said). What the card says was measured on
    `test`, named alike, or, without it, on the last `holdout` images, which are kept back.
    """

    path: str
    key: str | None = None
    test: str | None = None
    holdout: int = Field(32, ge=1)
    description: str = ""
    licence: str = ""

    @model_serializer(mode="wrap")
    def _used(self, usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `holdout` where none are kept back, so that what was made before there was one is still known for done."""
        return {key: value for key, value in usual(self).items() if self.test is None or key != "holdout"}


class LatentSettings(Frozen):
    """Train on the latents of an autoencoder: the file that its training wrote, or diffusers-vae:FOLDER. The network's channels
    and the noise levels are then the latents', which must have about unit variance; `data.patch` and `monitor.sheet_size` are
    pixels."""

    autoencoder: str


class OptimiserSettings(Frozen):
    """AdamW with warm-up, a constant rate, and a linear decay to zero over the last `decay` of the steps.

    `batch` counts patches of the smallest size, those of all processes together. `ema_gammas` are the lengths of the weights'
    averages (`invdiff.training.averages`); `ema_export` is the one that becomes the prior: the first, if it is not given,
    or the "best" on the held-back images.
    """

    steps: PositiveInt
    batch: PositiveInt = 16
    rate: PositiveFloat = 5e-4
    warmup: PositiveInt = 500
    decay: float = Field(0.3, gt=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: PositiveFloat = 1.0
    ema_gammas: tuple[PositiveFloat, ...] = Field((16.0,), min_length=1)
    ema_export: PositiveFloat | Literal["best"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, data: Any) -> Any:
        """`ema_gamma: 16` is short for `ema_gammas: [16]`; where both are given, as when one is assigned to a config with the
        other, the later one counts."""
        if isinstance(data, dict) and "ema_gamma" in data:
            last = [key for key in data if key in ("ema_gamma", "ema_gammas")][-1]
            lengths = (data["ema_gamma"],) if last == "ema_gamma" else data["ema_gammas"]
            data = {key: value for key, value in data.items() if key != "ema_gamma"} | {"ema_gammas": lengths}
        return data

    @model_validator(mode="after")
    def _exports_what_there_is(self) -> "OptimiserSettings":
        if isinstance(self.ema_export, float) and self.ema_export not in self.ema_gammas:
            raise ValueError(f"ema_export: expected one of ema_gammas, {list(self.ema_gammas)}, got {self.ema_export:g}")
        return self


class MonitorSettings(Frozen):
    """What is looked at as it goes: validation every `every` steps, and every `sheet_every` steps a sheet of `sheet`
    unconditional samples of `sheet_size` pixels, drawn in `sheet_steps` steps of DPM-Solver++."""

    every: PositiveInt = 1000
    sheet_every: PositiveInt = 5000
    sheet: int = Field(16, ge=0, le=256)
    sheet_size: int = Field(64, ge=8)
    sheet_steps: PositiveInt = 24
    tensorboard: bool = False


class TrainSettings(Frozen):
    """One training run. `initial` is the prior whose weights it begins with, by name or file; random ones without it."""

    name: Name
    initial: str | None = None
    data: DataSettings
    latent: LatentSettings | None = None
    network: NetworkSettings = UNetSettings()
    noise: NoiseSettings = LogNormal()
    loss: LossSettings = EDMLoss()
    optimiser: OptimiserSettings
    monitor: MonitorSettings = MonitorSettings()
    precision: str = Field("bf16", pattern="^(fp32|bf16)$")
    compile: bool = False
    seed: int = Field(0, ge=0, lt=2**63)
    use: str = ""

    @field_validator("network")
    @classmethod
    def _has_the_classes_that_are_named(cls, network: Any, info: ValidationInfo) -> Any:
        names, classes = len(info.data["data"].class_names) if "data" in info.data else 0, getattr(network, "classes", 0)
        if names and classes and names != classes:
            raise ValueError(f"expected a name for each of its {classes} classes, and data.class_names has {names}")
        return network

    @field_validator("optimiser")
    @classmethod
    def _ends_after_the_ramp(cls, optimiser: OptimiserSettings, info: ValidationInfo) -> OptimiserSettings:
        ramp = getattr(info.data.get("noise"), "ramp", 0)
        if ramp > optimiser.steps:
            raise ValueError(f"steps: expected at least noise.ramp = {ramp}, from where on all noise levels are trained, got "
                             f"{optimiser.steps}; make the ramp shorter")
        return optimiser

    @field_validator("loss")
    @classmethod
    def _is_of_use(cls, loss: Any, info: ValidationInfo) -> Any:
        if loss.kind == "hybrid" and info.data.get("latent"):
            raise ValueError("hybrid learns variances, and nothing asks a prior of latents for them; choose another kind, or "
                             "leave latent out")
        return loss
