"""Posterior samplers: prior × likelihood → samples of x given y."""

from invdiff.posterior.annealed_langevin import AnnealedLangevin
from invdiff.posterior.daps import DAPS
from invdiff.posterior.ddnm import DDNM
from invdiff.posterior.ddrm import DDRM
from invdiff.posterior.dds import DDS
from invdiff.posterior.diffpir import DiffPIR
from invdiff.posterior.dps import DPS
from invdiff.posterior.guidance import MomentMatching, PiGDM
from invdiff.posterior.ilvr import ILVR
from invdiff.posterior.psld import PSLD
from invdiff.posterior.red_diff import REDDiff
from invdiff.posterior.resample import ReSample
from invdiff.posterior.sampler import Sampler
from invdiff.posterior.split_gibbs import SplitGibbs
from invdiff.posterior.twisted_smc import TwistedSMC

__all__ = ["DAPS", "DDNM", "DDRM", "DDS", "DPS", "ILVR", "PSLD", "AnnealedLangevin", "DiffPIR", "MomentMatching", "PiGDM",
           "REDDiff", "ReSample", "Sampler", "SplitGibbs", "TwistedSMC"]
