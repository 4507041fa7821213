"""The denoiser contract, D(x, sigma) = E[x0 | x], around a network that knows nothing of units or sizes."""

from typing import Any

import torch
import torch.nn.functional as F
from deepinv.models import Denoiser
from torch import Tensor, nn

from invdiff.priors.pieces import in_pieces
from invdiff.priors.spectrum import ErrorSpectrum, spectrum_on


class EDMDenoiser(Denoiser):
    """D(x, sigma) from a raw network, with the preconditioning of EDM (Karras et al. 2022, Table 1).

    x (B, C, H, W) = x0 + sigma n, in the image's own units ([0, 1] for photographs), any H and W; sigma a float or (B,).
    A one-channel x on a three-channel network is grey: it is repeated on the channels and averaged again. Above the highest
    level of the card's `sigma_range` the network is told that level: it sees x in unit variance, nearly all noise.

    Args:
        network: maps (x scaled to unit variance, log sigma (B,)) to x's shape, one for classes also (.., .., classes (B,));
            its `stride` must divide what it is fed. One that tells variances gives twice the channels.
        channels: image channels of the network.
        sigma_data: standard deviation of clean images around `centre`.
        centre: the value the network sees as zero (0.5 for [0, 1] images, 0 for complex ones).
    """

    def __init__(self, network: nn.Module, channels: int = 3, sigma_data: float = 0.25, centre: float = 0.5):
        super().__init__()
        self.network, self.channels = network, channels
        self.sigma_data, self.centre = sigma_data, centre
        self.card: dict = {}

    def error_spectrum(self, channels: int) -> ErrorSpectrum | None:
        """The card's measured error spectrum for images of this many channels, or None."""
        return spectrum_on(self.card, self.channels, channels)

    @property
    def classes(self) -> int:
        """How many classes of images it knows; 0 if none."""
        label = getattr(self.network, "label", None)
        return label.num_embeddings - 1 if label is not None else 0

    @property
    def tells_variance(self) -> bool:
        """Has the network a second output, the variance of a step (Nichol & Dhariwal 2021)?"""
        return bool(getattr(self.network, "variance", False))

    def forward(self, x: Tensor, sigma: float | Tensor, classes: Tensor | None = None, **kwargs: object) -> Tensor:
        """E[x0 | x], of x's shape; of classes (B,), with -1 for any, or of any image at all (None).

        Raises ValueError for channels the network was not made for, and for classes it does not know.
        """
        grey = x.shape[1] == 1 and self.channels == 3
        if grey:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[1] != self.channels:
            raise ValueError(f"x: expected {self.channels} channels, got {tuple(x.shape)}")
        if classes is not None and (not self.classes or int(classes.max()) >= self.classes):
            raise ValueError(f"classes: expected numbers below {self.classes}, got {int(classes.max())}" if self.classes else
                             "classes: this prior knows none")
        out = self.precondition(x, sigma, classes)
        return out.mean(1, keepdim=True) if grey else out

    def precondition(self, x: Tensor, sigma: float | Tensor, classes: Tensor | None = None) -> Tensor:
        """c_skip x + c_out F(c_in x, log sigma), around `centre`; x of the network's channels."""
        return self.with_variance(x, sigma, classes)[0]

    def with_variance(self, x: Tensor, sigma: float | Tensor,
                      classes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The same, and what the network says of the variance of a step from there, of x's shape, if it does: -1 is the
        lower choice, 1 the upper one (`invdiff.diffusion.elbo.vlb_terms`)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(x.shape[0])
        s = sigma.reshape(-1, 1, 1, 1)
        total = s.square() + self.sigma_data**2
        z = x - self.centre
        f = self._padded(z / total.sqrt(), self._known(sigma).log(), *([] if classes is None else [classes])).to(x.dtype)
        variance = None
        if self.tells_variance:
            f, variance = f.chunk(2, 1)
        return self.centre + z * (self.sigma_data**2 / total) + f * (s * self.sigma_data / total.sqrt()), variance

    def _known(self, sigma: Tensor) -> Tensor:
        """The levels that the network is told, within those it was trained on: beyond, its output is anything. D goes to x as
        sigma falls whatever it says, if that is bounded."""
        lowest, highest = self.card.get("sigma_range") or (0.0, torch.inf)
        known = sigma.clamp(max(lowest, torch.finfo(sigma.dtype).tiny), highest)
        return torch.where(sigma < 0, torch.nan, known)

    def _padded(self, z: Tensor, *labels: Tensor) -> Tensor:
        h, w = z.shape[-2:]
        stride = getattr(self.network, "stride", 1)
        bottom, right = -h % stride, -w % stride
        if bottom or right:
            mode = "reflect" if bottom < h and right < w else "replicate"
            z = F.pad(z, (0, right, 0, bottom), mode=mode)
        return in_pieces(self.network, z, *labels)[..., :h, :w]


class AsItsPrior(Denoiser):
    """A prior that wraps another, `prior`, and says of itself what that one does: card, channels, centre, latent, decode ..."""

    prior: Denoiser

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)        # of torch's modules
        except AttributeError:
            if name == "prior":
                raise
            return getattr(self.prior, name)
