"""What tests of `invdiff restore` share."""

FILES = {"restored.png", "measurement.png", "prior.png", "std.png", "comparison.png", "result.h5", "report.json", "config.yaml"}
QUICK = ("--steps", "2", "--samples", "1")


def names(folder):
    return {path.name for path in folder.iterdir()}


def assert_refused(result, work, *said):
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(part in err for part in said), err
    assert not (work / "out").exists()
    assert not [name for name in names(work) if name.startswith(".")]
