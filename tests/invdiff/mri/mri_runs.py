"""Runs of a small scan that are stopped, killed and gone on with."""

from invdiff.resolving import run_config
from invdiff.restoration import Stop

QUICK = ("--set", "operator.grid=0", "--set", "operator.acceleration=2", "--set", "operator.noise=none")


def command(prior, *more, steps=40):
    return ["restore", "--task", "mri", "--input", "scan.h5", *QUICK, "--prior", str(prior), "--steps", str(steps),
            "--samples", "1", "--output", "out", *more]


def config_of(prior, steps=40, samples=1, more=()):
    return run_config("mri", None, ["input=scan.h5", *QUICK[1::2], f"prior={prior}", f"sampler.steps={steps}",
                                    f"samples={samples}", *more])


def stop_at(step):
    seen = []

    def on_step(progress):
        seen.append(progress)
        if len(seen) == step:
            raise Stop
    return on_step
