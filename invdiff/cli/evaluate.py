"""`invdiff evaluate`: how good the images are that a prior draws."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invdiff.cli.options import Device, Guidance, Precision, Prior, Seed, Solver, Steps, plain_console
from invdiff.errors import InputError

DEFAULTS = {"features": "fashion-classifier", "metrics": "fid,kid,is,pr,dc,accuracy"}
_DRAWING = ("prior", "solver", "steps", "class", "guidance", "seed", "precision", "count", "set")
_NOT_OF_LIKELIHOOD = tuple(name for name in (*_DRAWING, *DEFAULTS, "batch-size") if name not in ("prior", "seed"))

Data = Annotated[Path, typer.Option(help="Real images: a folder of them or of idx files, or an HDF5 file.")]
Drawn = Annotated[list[Path] | None, typer.Option(help="Images drawn before, instead of --prior: a folder, .npz or .npy; "
                                                       "repeatable, for sets that belong together.")]
Class = Annotated[str | None, typer.Option("--class", help="Number or name; each: in turn; any: none is told.")]
Features = Annotated[str | None, typer.Option(help="A classifier's name or file, inception, or inception:FILE [default: "
                                                   f"{DEFAULTS['features']}].")]
Metrics = Annotated[str | None, typer.Option(help=f"Some of them [default: {DEFAULTS['metrics']}].")]
Key = Annotated[str | None, typer.Option(help="Dataset, idx file or folder (in --data, or a path) of the real images "
                                              "[default: those for training, or all of a folder].")]
Floor = Annotated[str | None, typer.Option("--floor", help="Likewise, of other real images, whose scores are the floor "
                                                           "[default: those for testing, of a folder of idx files].")]
Assign = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. schedule=cosine; repeatable.")]


def evaluate(data: Data,
             prior: Prior = None,
             samples: Drawn = None,
             count: Annotated[int | None, typer.Option("--count", "-n", help="How many to draw [default: 10000].")] = None,
             solver: Solver = None, steps: Steps = None, klass: Class = None, guidance: Guidance = None,
             features: Features = None, metrics: Metrics = None, key: Key = None, kept_apart: Floor = None,
             assign: Assign = None,
             batch_size: Annotated[int | None, typer.Option(help="Images drawn, and looked at, together.")] = None,
             seed: Seed = None, device: Device = None, precision: Precision = None,
             likelihood: Annotated[int | None, typer.Option(help="Instead of drawing: bits a dimension of so many of the "
                                                                 "images kept apart, by the bound and by the flow.")] = None,
             output: Annotated[Path | None, typer.Option("--output", "-o", help="The scores as JSON.")] = None) -> None:
    """Score drawn images against real ones: Fréchet distance, KID, Inception score, precision and recall, density and coverage,
    and how many are classified as their class; beside them the floor, the same scores of real images kept apart.

    With --likelihood: how many bits the prior needs for real images.
    """
    options = {"prior": prior, "samples": samples, "count": count, "solver": solver, "steps": steps, "class": klass,
               "guidance": guidance, "seed": seed, "precision": precision, "set": assign or [], "data": data, "key": key,
               "floor": kept_apart, "features": features, "metrics": metrics, "batch-size": batch_size}
    _check(options, likelihood is not None, output)
    if likelihood is not None:
        _likelihood(options, likelihood, device, output)
    else:
        _score(options | {name: usual for name, usual in DEFAULTS.items() if options[name] is None}, device, output)


def _score(options: dict[str, Any], device: str | None, output: Path | None) -> None:
    """Scores of images that were drawn before, or are now."""
    from invdiff.evaluation.generative.evaluate import chosen_metrics, floor
    from invdiff.evaluation.generative.evaluate import evaluate as score
    from invdiff.evaluation.generative.features import Looked, feature_network
    from invdiff.evaluation.generative.references import reference, sample_images
    from invdiff.machine import find_device, versions

    together, samples = options["batch-size"], options["samples"]
    wanted, network = chosen_metrics(options["metrics"]), feature_network(options["features"], find_device(device or "auto"))
    real, names = reference(network, options["data"], options["key"], options["floor"], together)
    sets, report = ([sample_images(path, network.classes) for path in samples], None) if samples else \
        _drawn(options, device, network, real.images.size)
    seen = Looked.joined([images.seen_by(network, together) for images in sets])
    found, lowest = score(seen, real, wanted), floor(real, len(seen), wanted, classes=seen.classes)
    if "accuracy" in wanted and "class_accuracy" not in found:
        _without_accuracy(network.name, found)
    made = {"command": _command(options), "samples": ", ".join(images.source for images in sets), "count": len(seen),
            "features": network.name, **names, "real": len(real.images), **({"sampling": report} if report else {}),
            "versions": versions()}
    _show(found, lowest, made)
    if output:
        _save(output, {"made": made, "scores": found, "floor": lowest})


def _without_accuracy(features: str, found: dict[str, float]) -> None:
    why = f"the images have no classes that {features} knows"
    if not found:
        raise InputError(f"--metrics: accuracy cannot be told, as {why}; ask for others too, such as fid")
    typer.echo(f"accuracy is left out: {why}")


def _check(options: dict[str, Any], likelihood: bool, output: Path | None) -> None:
    """Before a long computation."""
    from invdiff.evaluation.generative.evaluate import LEAST

    if (options["prior"] is None) == (options["samples"] is None):
        raise InputError("evaluate: give either --prior, to draw images, or --samples, the images")
    if likelihood and options["prior"] is None:
        raise InputError("--likelihood: is a prior's; give --prior")
    for asked, unused, why in ((likelihood, _NOT_OF_LIKELIHOOD, "--likelihood: nothing is drawn or scored"),
                               (options["samples"], _DRAWING, "evaluate: --samples are drawn already")):
        given = [name for name in unused if options[name] not in (None, [])]
        if asked and given:
            raise InputError(f"{why}; leave out --{given[0]}")
    for name, least in (("batch-size", 1), ("count", LEAST)):
        if options[name] is not None and options[name] < least:
            raise InputError(f"--{name}: expected at least {least}, got {options[name]}")
    if output and (output.suffix != ".json" or not output.parent.is_dir()):
        raise InputError(f"--output: expected a name that ends in .json, in an existing folder, got {output}")


def _drawn(options: dict[str, Any], device: str | None, network: Any,
           size: tuple[int, ...] | None) -> tuple[list[Any], dict[str, Any]]:
    """A set of images of `size`, (H, W), and how they were drawn."""
    from invdiff.cli.sample import with_progress
    from invdiff.evaluation.generative.references import drawn_images
    from invdiff.sample_config import draw, sample_config
    from invdiff.sampling import image_size

    given = {name: options[name] for name in _DRAWING if name != "set"}
    given |= {"solver": options["solver"] and {"name": options["solver"]}, "count": options["count"] or 10_000,
              "batch_size": options["batch-size"], "device": device}
    config, prior = sample_config(given, options["set"])
    if getattr(prior, "channels", 3) == 2:
        raise InputError(f"--prior: {config.prior} draws complex images, and no features are of those; give a prior of grey or "
                         "colour images")
    made = image_size(prior, config.size)
    if size and made != size:
        raise InputError(f"--prior: {config.prior} draws images of {made[0]} x {made[1]}, and the real ones are {size[0]} x "
                         f"{size[1]}; give others, or --set size=[{size[0]},{size[1]}] where the prior takes any")
    drawn = with_progress(lambda show: draw(config, prior, show))
    kept = ("solver", "steps", "schedule", "sigma_min", "sigma_max", "guidance", "guidance_interval", "seed", "size",
            "network_calls", "precision")
    report = drawn.report
    typer.echo(f"drawn in {report['seconds']:.1f} s on {report['device']}, {report['network_calls']:g} network calls each")
    if warning := report.get("warning"):
        typer.echo(warning, err=True)
    images = drawn_images(drawn.images, drawn.classes, prior, network, Path(config.prior).stem)
    return [images], {name: report[name] for name in kept}


def _likelihood(options: dict[str, Any], count: int, device: str | None, output: Path | None) -> None:
    from invdiff.cli.sample import with_progress
    from invdiff.evaluation.generative.references import likelihood_of
    from invdiff.machine import find_device, versions
    from invdiff.priors.facts import own_sampling
    from invdiff.sample_config import sample_config

    prior, where = options["prior"], find_device(device or "auto")
    loaded = sample_config({"prior": prior})[1].to(where)
    if own_sampling(loaded):
        raise InputError(f"--likelihood: is a denoiser's, and {prior} is none, but draws in few steps; give its teacher")
    found = with_progress(lambda show: likelihood_of(loaded, options["data"], options["key"], options["floor"], count,
                                                     options["seed"] or 0, where, show))
    terms = ", ".join(f"{name} {value:.3f}" for name, value in found["elbo_terms"].items())
    gap = found["elbo_bits_per_dim"] - found["ode_bits_per_dim"]
    errors = {name: "" if value is None else f" ± {value:.3f}" for name, value in found["standard_error"].items()}
    typer.echo(f"{found['images']} images, {found['source']}, in bits a dimension:\n"
               f"  the bound          {found['elbo_bits_per_dim']:.3f}{errors['elbo']}   ({terms})\n"
               f"  by the flow        {found['ode_bits_per_dim']:.3f}{errors['ode']}   (twice the steps: "
               f"{found['ode_step_error']:+.3f})\n"
               f"  their difference   {gap:.3f}{errors['difference']}")
    if output:
        _save(output, {"made": {"prior": Path(prior).name, "versions": versions()}, "likelihood": found})


def _command(options: dict[str, Any]) -> str:
    """What was asked for, files by their names alone."""
    parts = ["invdiff evaluate"]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                file = name in ("data", "samples", "prior", "features") or Path(str(one)).is_absolute()
                shown = Path(one).name if file else one
                parts.append(f"--{name} {shown}")
    return " ".join(parts)


def _show(found: dict[str, float], lowest: dict[str, float], made: dict[str, Any]) -> None:
    from rich.table import Table

    from invdiff.evaluation.generative.evaluate import LABELS, shown

    kept_apart = f"; floor: {made['kept_apart']}" if lowest else ""
    table = Table(title=f"{made['count']:,} images, {made['samples']}", caption=f"features of {made['features']} against "
                  f"{made['real']:,} real images, {made['reference']}{kept_apart}")
    for name in ("", "samples", *(["floor"] if lowest else [])):
        table.add_column(name, justify="right" if name else "left")
    for name, label in LABELS.items():
        if name in found or name in lowest:
            cells = [found, lowest] if lowest else [found]
            table.add_row(label, *(_cell(scores, name, shown) for scores in cells))
    plain_console().print(table)


def _cell(scores: dict[str, float], name: str, shown: Any) -> str:
    spread = scores.get(f"{name}_spread")
    return shown(scores.get(name)) + (f" ± {spread:.2g}" if spread is not None else "")


def _save(output: Path, record: dict[str, Any]) -> None:
    from invdiff.io.files import unwritable
    from invdiff.io.results import write_json

    try:
        write_json(output, record)
    except OSError as error:
        raise unwritable(output, error) from error
    typer.echo(f"{output}: the scores")
