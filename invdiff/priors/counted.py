"""A prior that keeps count of what it is asked to do."""

from typing import Any

import torch
from deepinv.models import Denoiser
from torch import Tensor

from invdiff.priors.facts import known_spectrum


class Counted(Denoiser):
    """A prior under a precision, that answers for its spectrum and card and counts images.

    Attributes:
        calls: images that a network denoised; a prior that asks one for more than it was given says so, as `network_calls`.
        gradients: products of its Jacobian with an image, J^T v by a backward pass or J v by one through that.
    """

    def __init__(self, prior: Denoiser, precision: str, device: torch.device):
        super().__init__()
        self.prior, self.precision, self.kind = prior, precision, device.type
        self.card: dict = getattr(prior, "card", {})
        self.calls = self.gradients = 0

    def forward(self, x: Tensor, sigma: float | Tensor, *args: object, **kwargs: object) -> Tensor:
        self._count(x, sigma)
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16"):
            x0 = self.prior(x, sigma, *args, **kwargs).to(x.dtype)
        if x0.requires_grad and x.requires_grad:
            x0.register_hook(self._on_gradient)
        return x0

    def with_variance(self, x: Tensor, sigma: float | Tensor, *args: object) -> tuple[Tensor, Tensor | None]:
        """The estimate, and what the prior says of the variance of a step from there, if it does; no gradients are counted."""
        told = getattr(self.prior, "with_variance", None)
        if told is None:
            return self(x, sigma, *args), None
        self._count(x, sigma)
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16"):
            x0, share = told(x, sigma, *args)
        return x0.to(x.dtype), None if share is None else share.to(x.dtype)

    def _count(self, x: Tensor, sigma: float | Tensor) -> None:
        asks = getattr(self.prior, "network_calls", None)
        self.calls += asks(x, sigma) if asks else len(x)

    def _on_gradient(self, v: Tensor) -> None:
        """Called with the v of J^T v. Where that keeps a graph, a gradient by v is a product with J."""
        self.gradients += len(v)
        if v.requires_grad:
            v.register_hook(self._on_product)

    def _on_product(self, product: Tensor) -> None:
        self.gradients += len(product)

    def error_spectrum(self, channels: int) -> Any:
        return known_spectrum(self.prior, channels)
