"""`invdiff calibrate`: intervals that cover what they say, for a task, a prior and a sampler."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import Assign, Config, Device, Precision, Prior, Sampler, Samples, Task, progress_bar, resolve
from invdiff.errors import InputError

OTHERS = 10         # images of another kind that are looked at


def calibrate(
    data: Annotated[Path, typer.Option(help="Clean images that the prior was not trained on: a folder or an HDF5 file; of "
                                            "scans, slices in HDF5, NIfTI or DICOM.")],
    task: Task = None,
    config: Config = None,
    key: Annotated[str | None, typer.Option(help="Dataset of an HDF5 file [default: test_jpeg, of scans test].")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Images; every other one calibrates, the rest check.")] = 64,
    size: Annotated[int, typer.Option(help="Height and width of the central crops, pixels.")] = 128,
    level: Annotated[float, typer.Option(help="The share of pixels that an interval is to cover.")] = 0.9,
    delta: Annotated[float | None, typer.Option(help="Cover it with probability 1 - DELTA over the calibration images, and "
                                                     "not just on average.")] = None,
    vary: Annotated[list[str] | None, typer.Option(help="KEY=LOW:HIGH or KEY=A,B,...: a setting that differs from image to "
                                                        "image, so that the record is for any of them, with a factor that "
                                                        "changes with it, as in sigma_y=0.005:0.1. Repeatable.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="PATH or PATH:KEY of images of another kind: how many of 10 does the "
                                                          "warning find? Repeatable.")] = None,
    assign: Assign = None,
    prior: Prior = None,
    sampler: Sampler = None,
    samples: Samples = None,
    device: Device = None,
    precision: Precision = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here, and not where the task finds it.")] = None,
) -> None:
    """Restore images that are known, find how wide the 90 % intervals must be to cover 90 %, and what is usual, and keep it
    where restore and the app find it: for a task in the user's cache folder, for a config beside it.

    Interrupted, it goes on where it was when started again.
    """
    from invdiff.calibration.finding import place
    from invdiff.calibration.known import known_images
    from invdiff.calibration.measuring import calibrate as run
    from invdiff.calibration.measuring import check_unlike
    from invdiff.calibration.record import write_calibration
    from invdiff.calibration.varying import read_law
    from invdiff.io.partial import remove_partial
    from invdiff.resolving import calibration_beside

    for option, value, least in (("count", count, 2), ("size", size, 16)):
        if value < least:
            raise InputError(f"--{option}: expected at least {least}, got {value}")
    given = {"prior": prior, "sampler.name": sampler, "samples": samples, "device": device,
             "precision": precision}
    resolved = resolve(task, config, assign, given).model_copy(update={"calibration": None})
    if resolved.sigma_y in (None, "auto"):
        raise InputError("sigma_y: the noise to simulate is to be given, for example --set sigma_y=0.01")
    if output:
        _check_output(output, resolved, [data, *(_path_and_key(name)[0] for name in unlike or []), *filter(None, [config])])
    law = read_law(resolved, vary or [])
    images = known_images(resolved, data, key, count, size)
    others = [known_images(resolved, *_path_and_key(name), OTHERS, size) for name in unlike or []]
    if others:
        check_unlike(images)
    path = output or (calibration_beside(config) if config else place(resolved, law))
    partial = _partial(path)
    record = _with_bar(resolved.task, lambda show: run(resolved, images, level=level, delta=delta, law=law,
                                                       checkpoint=partial, on_image=show))
    write_calibration(path, record)
    remove_partial(partial)
    if others:
        record = _with_detected(record, resolved, others)
        write_calibration(path, record)
    _show(record)
    use = f"restore --set calibration={path} uses it" if output else "restore and the app find it there"
    typer.echo(f"{path}: the calibration; {use}")


def _check_output(output: Path, config: Any, named: list[Any]) -> None:
    """Raises InputError where the record would replace one of the files that the command reads."""
    from invdiff.io.results import check_kept
    from invdiff.priors.names import file_of

    check_kept(output, [*named, *config.files, file_of(config.prior)])


def _partial(path: Path) -> Path:
    """Where the finished images of a record are kept until all are: each record's own, also of one name in two folders."""
    from invdiff.paths import cache_folder

    return cache_folder() / "calibrations" / f"{path.stem}-{sha256(str(path.resolve()).encode()).hexdigest()[:8]}.partial"


def _with_detected(record: Any, config: Any, others: list[Any]) -> Any:
    """The record, with the share of images of other kinds that are called unusual."""
    from invdiff.calibration.measuring import detected

    found = {other.source: _with_bar(other.source, lambda show, other=other: detected(record, config, other, show))
             for other in others}
    return record.model_copy(update={"check": {**record.check, "detected": found}})


def _path_and_key(text: str) -> tuple[str, str | None]:
    path, colon, key = text.rpartition(":")
    return (path, key) if colon and Path(path).exists() else (text, None)


def _with_bar(name: str, work: Any) -> Any:
    with progress_bar("images") as bar:
        line = bar.add_task(name, total=None)
        return work(lambda done, total: bar.update(line, completed=done, total=total))


def _show(record: Any) -> None:
    from invdiff.calibration.trend import relative_factor

    check = record.check
    error = f" ± {check['standard_error']:.1%}" if check["standard_error"] is not None else ""
    plain = dict(zip(check["levels"], check["uncalibrated"], strict=True)).get(record.level)
    lines = [f"factor {record.factor:.3f} on the standard deviation of {record.samples} samples, from {record.count} images"]
    for key in record.trend:
        times = [f"{relative_factor(record.trend, record.varied, {key: end}):.2f} at {end}" for end in record.varied[key].ends]
        lines.append(f"  {key}: times {', '.join(times)}")
    lines += [f"on {check['images']} fresh images it covers {check['covered']:.1%}{error} of the pixels"
              + (f" (uncalibrated: {plain:.1%})" if plain is not None else "") + f"; {record.level:.0%} were asked",
              f"mean half-width {check['half_width']:.4f}, mean error {check['error']:.4f}, rank correlation of spread and "
              f"error {check['spearman']:.2f}"]
    lines += [f"  with {count} samples, factor {record.fewer[int(count)]:.3f}: {covered:.1%}"
              for count, covered in check.get("fewer", {}).items()]
    lines += [f"  {key} {part}: {found['covered']:.1%} of {found['images']} images"
              for key, parts in check.get("by", {}).items() for part, found in parts.items()]
    if "alarms" in check:
        lines.append(f"{check['alarms']:.1%} of the fresh images were called unusual")
        lines += [f"{share:.0%} of {source} were" for source, share in check.get("detected", {}).items()]
    elif record.novelty is None:
        lines.append("too few images to learn what is usual: with 38 or more, restore can warn of images unlike these")
    typer.echo("\n".join(lines))
