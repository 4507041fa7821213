"""Means over images, and what of their differences counts."""

from invdiff.benchmark.summary import Line, best, lines, standard_error, variants


def scored(**psnr):
    """The lines of methods with these values, an image each."""
    rows = [{"task": "t", "prior": "p", "method": name, "image": i + 1, "status": "done", "reason": "", "psnr": value}
            for name, values in psnr.items() for i, value in enumerate(values)]
    return lines(rows, variants(rows, {}), "t")


def winners(**psnr):
    known = scored(**psnr)
    return {line.variant.method for line in known if line.variant.number in best(known, "psnr")}


def test_errors_of_means_by_hand():
    (line,) = scored(a=[20.0, 24.0, 28.0])
    assert line.values["psnr"] == 24
    assert line.errors == {"psnr": (16 / 3) ** 0.5}
    assert scored(a=[20.0])[0].errors == {}
    assert standard_error([3.0]) == 0


def test_what_cannot_be_told_from_the_best_is_best_too():
    """Image by image: a difference of 0.2 on all is one, however much images differ; one of 0.5 that has both signs is none."""
    assert winners(a=[20.0, 30.0, 25.0], b=[19.8, 29.8, 24.8]) == {"a"}
    assert winners(a=[20.0, 30.0, 25.0], b=[22.0, 28.0, 23.5]) == {"a", "b"}
    assert winners(a=[20.004, 30.0], b=[20.0, 29.996]) == {"a", "b"}          # the same in shown digits
    assert winners(a=[20.0], b=[20.2]) == {"b"}                               # nothing is known of a single image's error


def test_means_over_fewer_images_do_not_compete():
    assert winners(a=[20.0, 21.0], b=[40.0]) == {"a"}
    assert best([], "psnr") == set()
    assert isinstance(scored(a=[1.0])[0], Line)
