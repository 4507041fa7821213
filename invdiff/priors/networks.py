"""The networks that a prior may be made of, by name: their settings, which a checkpoint's card keeps, and how to build them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, NonNegativeInt, PositiveInt, Tag, TypeAdapter
from torch import Tensor, nn

from invdiff.priors.dit import DiT
from invdiff.priors.unet import UNet

# More is no network of ours; a file that claims it would take minutes or all memory before it is found out.
DEEPEST, LEVELS, WIDEST = 64, 8, 2**16
Depth = Annotated[int, Field(ge=1, le=DEEPEST)]
Width = Annotated[int, Field(ge=1, le=WIDEST)]
Depths = Annotated[tuple[Depth, ...], Field(min_length=1, max_length=LEVELS)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=LEVELS)]


def check_sizes(widths: Sequence[int], depths: Sequence[int], *others: int) -> None:
    """Raises ValueError for a network beyond these limits, of widths, depths and other sizes that no settings have checked."""
    if max(len(widths), len(depths)) > LEVELS or max([*widths, *others]) > WIDEST or max(depths) > DEEPEST:
        raise ValueError(f"expected at most {LEVELS} levels, depths up to {DEEPEST} and widths up to {WIDEST}, got depths "
                         f"{list(depths)} and widths {[*widths, *others]}")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: PositiveInt = 3

    def build(self) -> nn.Module:
        raise NotImplementedError


class UNetSettings(_Settings):
    """The compact U-Net of the shipped priors; `invdiff.priors.unet.UNet` says what each means."""

    kind: Literal["unet"] = "unet"
    widths: Widths = (64, 128, 192, 224)
    depths: Depths = (2, 2, 2, 1)
    embedding: PositiveInt = 256
    classes: NonNegativeInt = 0
    variance: bool = False
    attention: bool = False

    def build(self) -> nn.Module:
        return UNet(self.channels, self.widths, self.depths, self.embedding, self.classes, self.variance, self.attention)


class DiTSettings(_Settings):
    """A diffusion transformer; `invdiff.priors.dit.DiT` says what each means."""

    kind: Literal["dit"]
    patch: PositiveInt = 4
    width: PositiveInt = 256
    depth: Depth = 8
    heads: PositiveInt = 4
    classes: NonNegativeInt = 0

    def build(self) -> nn.Module:
        return DiT(self.channels, self.patch, self.width, self.depth, self.heads, self.classes)


class _DeepinvSettings(_Settings):
    """deepinv's arguments of the same names, of EDM's networks. Attention is at the levels where an image of side
    img_resolution has a side in attn_resolutions."""

    img_resolution: PositiveInt = 64
    model_channels: int = Field(128, ge=32, multiple_of=32)
    channel_mult: Widths = (1, 2, 2, 2)
    num_blocks: Depth = 4
    attn_resolutions: tuple[PositiveInt, ...] = (16,)
    dropout: float = Field(0.1, ge=0, lt=1)

    def build(self) -> nn.Module:
        import deepinv

        make = {"ncsnpp": deepinv.models.NCSNpp, "adm": deepinv.models.ADMUNet}[self.kind]      # type: ignore[attr-defined]
        arguments = self.model_dump(exclude={"kind", "channels"})
        model = make(**arguments, in_channels=self.channels, out_channels=self.channels, augment_dim=0, pretrained=None)
        return Raw(model, 2 ** (len(self.channel_mult) - 1))


class NCSNppSettings(_DeepinvSettings):
    """NCSN++ (Song et al. 2021) as deepinv has it."""

    kind: Literal["ncsnpp"]


class ADMSettings(_DeepinvSettings):
    """The ablated diffusion model's U-Net (Dhariwal & Nichol 2021) as deepinv has it."""

    kind: Literal["adm"]
    model_channels: int = Field(192, ge=32, multiple_of=32)
    channel_mult: Widths = (1, 2, 3, 4)
    num_blocks: Depth = 3
    attn_resolutions: tuple[PositiveInt, ...] = (32, 16, 8)


class Raw(nn.Module):
    """The network inside a denoiser of deepinv's that brings its own preconditioning."""

    def __init__(self, model: nn.Module, stride: int):
        super().__init__()
        self.model, self.stride = model, stride

    def forward(self, x: Tensor, noise_label: Tensor) -> Tensor:
        """x (B, C, H, W), log sigma (B,) -> (B, C, H, W). EDM's label is a quarter of it."""
        return self.model.forward_unet(x, noise_label / 4)      # type: ignore[operator]


def _kind(value: Any) -> str:
    return value.get("kind", "unet") if isinstance(value, dict) else getattr(value, "kind", "unet")


NetworkSettings = Annotated[Annotated[UNetSettings, Tag("unet")] | Annotated[DiTSettings, Tag("dit")]
                            | Annotated[NCSNppSettings, Tag("ncsnpp")] | Annotated[ADMSettings, Tag("adm")],
                            Discriminator(_kind)]
_ADAPTER: TypeAdapter = TypeAdapter(NetworkSettings)


def build_network(architecture: dict) -> nn.Module:
    """The network of a card's `architecture`; without a `kind` it is a U-Net.

    Raises:
        ValueError: an unknown kind or parameter, or a value that is none (pydantic's ValidationError).
    """
    return _ADAPTER.validate_python(architecture).build()
