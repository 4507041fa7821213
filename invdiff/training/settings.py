"""What a training run is made of: the schema of configs/train/*.yaml."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(Frozen):
    """Where images come from. `holdout` images are kept back for validation and for the card's error spectrum; the
    HDF5 dataset `test`, if one is named, is for the card's denoising table.

    With a network of two channels, `key` and `test` are complex images (N, 2, H, W), and `magnitudes` may name another
    HDF5 file, beside `path`, whose encoded grey images in `magnitudes_key` are given a smooth random phase.

    Steps take the sizes of `patch` in turn, multiples of 16; the batch is as many pixels for each.
    """

    path: str
    key: str = "train_jpeg"
    test: str | None = None
    holdout: int = Field(32, ge=1)
    patch: tuple[PositiveInt, ...] = Field((64,), min_length=1)
    scales: tuple[PositiveFloat, ...] = (1.0,)
    grey: float = Field(0.0, ge=0, le=1)
    magnitudes: str | None = None
    magnitudes_key: str = "train_webp"
    description: str = ""
    licence: str = ""


class NetworkSettings(Frozen):
    """Architecture of the U-Net; `invdiff.priors.unet.UNet` says what each means."""

    channels: PositiveInt = 3
    widths: tuple[PositiveInt, ...] = (64, 128, 192, 224)
    depths: tuple[PositiveInt, ...] = (2, 2, 2, 1)
    embedding: PositiveInt = 256


class NoiseSettings(Frozen):
    """Noise levels to train on: log-normal, with a share drawn log-uniformly from the whole range [low, high]."""

    log_mean: float = -1.9
    log_std: PositiveFloat = 1.3
    uniform_share: float = Field(0.15, ge=0, le=1)
    low: PositiveFloat = 0.002
    high: PositiveFloat = 40.0
    sigma_data: PositiveFloat = 0.25
    centre: float = 0.5


class OptimiserSettings(Frozen):
    """AdamW with warm-up, a constant rate, and a linear decay to zero over the last `decay` of the steps.

    `batch` counts patches of the smallest size.
    """

    steps: PositiveInt
    batch: PositiveInt = 16
    rate: PositiveFloat = 5e-4
    warmup: PositiveInt = 500
    decay: float = Field(0.3, gt=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: PositiveFloat = 1.0
    ema_gamma: PositiveFloat = 16.0


class TrainSettings(Frozen):
    """One training run."""

    name: str
    data: DataSettings
    network: NetworkSettings = NetworkSettings()
    noise: NoiseSettings = NoiseSettings()
    optimiser: OptimiserSettings
    precision: str = Field("bf16", pattern="^(fp32|bf16)$")
    seed: int = Field(0, ge=0)
    use: str = ""
