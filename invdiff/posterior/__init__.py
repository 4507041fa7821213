"""Posterior samplers: prior × likelihood → samples of x given y."""

from invdiff.posterior.ddrm import DDRM
from invdiff.posterior.dps import DPS
from invdiff.posterior.guidance import DiffPIR, MomentMatching, PiGDM
from invdiff.posterior.sampler import Sampler
from invdiff.posterior.twisted_smc import TwistedSMC

__all__ = ["DDRM", "DPS", "DiffPIR", "MomentMatching", "PiGDM", "Sampler", "TwistedSMC"]
