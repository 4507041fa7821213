"""The run that the tests of calibrations are about."""

from invdiff.resolving import run_config

SIZE = (1, 12, 12)      # of images


def config_of(*assignments):
    return run_config("deblur", None, ["sampler.steps=20", "samples=6", "antithetic=false", "sigma_y=0.05",
                                      "operator.sigma=0.8", *assignments])
