"""Integrators of the reverse diffusion. They know a denoiser and noise levels, and nothing of problems.

Each is called with (denoise, sigmas, x, noise): `denoise(x, sigma)` gives E[x0 | x] (or E[x0 | x, y]), `sigmas` falls to
0, x (B, C, H, W) is the state at sigmas[0], and `noise()` draws standard normal noise of x's shape. Each yields one `Step`
for each interval. In the frame x = x0 + sigma n the probability flow is dx / dsigma = (x - D) / sigma, and the step of
DDIM, of Euler's method and of DPM-Solver-1 is the same.
"""

from invdiff.diffusion.adaptive import RK45, DPMSolverAdaptive
from invdiff.diffusion.ancestral import DDIM, DDPM, Renoise
from invdiff.diffusion.consistency import Consistency
from invdiff.diffusion.dpm_solver_pp import DPMSolverPP, DPMSolverPP2S, DPMSolverPP3M
from invdiff.diffusion.langevin import Langevin
from invdiff.diffusion.ode import DPMSolver, Heun
from invdiff.diffusion.sde import EDMStochastic, EulerMaruyama, PredictorCorrector
from invdiff.diffusion.stepping import Denoise, DrawNoise, Integrator, Step

__all__ = ["DDIM", "DDPM", "RK45", "Consistency", "DPMSolver", "DPMSolverAdaptive", "DPMSolverPP", "DPMSolverPP2S",
           "DPMSolverPP3M", "Denoise", "DrawNoise", "EDMStochastic", "EulerMaruyama", "Heun", "Integrator", "Langevin",
           "PredictorCorrector", "Renoise", "Step"]
