"""`invdiff restore` of a folder: its pictures one after another, each into an output folder of its own, and a table of them."""

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from invdiff.cli.options import results_in
from invdiff.cli.saved_run import run_into, run_with_progress
from invdiff.errors import InputError

SUMMARY = "summary.csv"
COLUMNS = ("picture", "folder", "status", "psnr", "psnr_measurement", "residual", "half_width", "sigma_y", "seconds", "note")
WIDEST = 40         # characters of a name, from where on it puts the table out of line
RESTORED, KEPT, FAILED = "restored", "kept", "failed"
_FORMATS = "PNG, JPEG, TIFF, WebP, BMP and .npy are read"


def folder_of(config: Any) -> Path | None:
    """The folder of pictures that a config has in the place of one; those of scans are scans."""
    source = Path(config.input or config.truth or "")
    return source if (config.input or config.truth) and not config.is_scan and source.is_dir() else None


def restore_folder(config: Any, source: Path, output: Path) -> None:
    """Restore each picture of `source`, sorted by name, into a folder below `output`; `config` has `source` for its picture.
    Those that are there already are kept, and one at fault does not keep the others from being restored.

    Raises InputError for what is wrong with all of them, and typer.Exit(2) after the last where there was one at fault.
    """
    from invdiff.io.files import make_folder

    pictures, others = pictures_in(source)
    _check_place(output)
    make_folder(output)
    if others:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        typer.echo(f"{source}: {len(others)} other file{'s are' if len(others) > 1 else ' is'} left out ({named}); {_FORMATS}",
                   err=True)
    key = "input" if config.input else "truth"
    batch = _Batch(output, [(config.model_copy(update={key: str(picture)}), picture, output / name)
                            for picture, name in zip(pictures, names_of(pictures), strict=True)])
    typer.echo(f"{config.task}: {len(pictures)} picture{'s' if len(pictures) > 1 else ''} of {source}, {config.samples} "
               f"sample{'s' if config.samples > 1 else ''} by {config.sampler['name']} of each, prior {config.prior}")
    try:
        batch.run()
    except KeyboardInterrupt:
        typer.echo(f"{output}: {len(batch.done())} of {len(pictures)} pictures are there; the same command goes on from there",
                   err=True)
        raise
    counts = Counter(row["status"] for row in batch.rows)
    said = ", ".join(f"{counts[status]} {status}" for status in (RESTORED, KEPT, FAILED) if counts[status])
    with results_in(output):
        typer.echo(f"{said}; results in {output}, a row for each in {output / SUMMARY}")
    if counts[FAILED]:
        raise typer.Exit(2)


def pictures_in(source: Path) -> tuple[list[Path], list[str]]:
    """The pictures of a folder, and the names of its other files; hidden ones and folders are neither. Raises InputError."""
    from invdiff.datasets.images import SUFFIXES

    try:
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); give a folder you may read") from error
    pictures = [path for path in files if path.suffix.lower() in {*SUFFIXES, ".npy"}]
    if not pictures:
        raise InputError(f"{source}: is a folder without pictures; {_FORMATS}, and folders in it are not")
    return pictures, sorted({path.name for path in files} - {path.name for path in pictures})


def names_of(pictures: Sequence[Path]) -> list[str]:
    """Of output folders: stems, or whole names where stems are the same, or another's name, be it in capitals, or are those of
    what else is written."""
    stems, names = (Counter(getattr(path, part).casefold() for path in pictures) for part in ("stem", "name"))
    names |= Counter({SUMMARY})
    return [path.stem if stems[path.stem.casefold()] == 1 and path.stem.casefold() not in names
            and not path.stem.casefold().endswith(".partial") else path.name for path in pictures]


def _check_place(output: Path) -> None:
    if (output / "report.json").exists():
        raise InputError(f"{output}: holds an earlier result, of one picture; choose another output for those of a folder")
    summary = output / SUMMARY
    if summary.exists() and not summary.read_bytes().startswith(",".join(COLUMNS).encode()):
        raise InputError(f"{summary}: is no earlier table of restored pictures; choose another output, or move it")


class _Batch:
    """A folder under way. `work`: config, picture and output folder of each; `rows`: what came of those that are done."""

    def __init__(self, output: Path, work: Sequence[tuple[Any, Path, Path]]):
        self.output, self.work = output, work
        self.rows: list[dict[str, Any]] = []
        self.width = max(len(picture.name) for _, picture, _ in work)
        self.scored, self.spread = work[0][0].truth is not None, work[0][0].samples > 1

    def done(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] != FAILED]

    def run(self) -> None:
        from invdiff.job import find_device, load_prior

        kept = [_kept(config, folder) for config, _, folder in self.work]
        load = functools.cache(load_prior)          # no more of them are alive than in one run
        if None in kept:                            # what is wrong with these is so for all
            find_device(self.work[0][0].device)
            load(self.work[0][0].prior)
        self._say(self._line("", "picture", "PSNR (dB)", "residual", "interval", "seconds", ""))
        for number, ((config, picture, folder), report) in enumerate(zip(self.work, kept, strict=True), 1):
            shown = f"{number}/{len(self.work)} {picture.name[:WIDEST]}"
            run = functools.partial(run_with_progress, config, name=shown, load=load)
            self._add(number, _row(KEPT, picture, folder, report) if report else _restored(config, picture, folder, run))

    def _add(self, number: int, row: dict[str, Any]) -> None:
        from invdiff.io.files import write_text, writing

        self.rows.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with writing(self.output / SUMMARY):
            write_text(self.output / SUMMARY, table.getvalue())
        if row["status"] != FAILED:
            psnr, width = row["psnr"], row["half_width"]
            self._say(self._line(f"{number}/{len(self.work)}", Path(row["picture"]).name, "" if psnr is None else f"{psnr:.2f}",
                                 row["residual"], "" if width is None else f"±{width:.3f}", f"{row['seconds']:.1f}",
                                 "; ".join(filter(None, [KEPT if row["status"] == KEPT else "", row["note"]]))))

    def _line(self, number: str, name: str, psnr: str, residual: str, width: str, seconds: str, note: str) -> str:
        first = 2 * len(str(len(self.work))) + 1
        cells = [f"{number:>{first}}", f"{name:<{min(self.width, WIDEST)}}", *([f"{psnr:>9}"] if self.scored else []),
                 f"{residual:<11}", *([f"{width:>8}"] if self.spread else []), f"{seconds:>7}", note]
        return "  ".join(cells).rstrip()

    def _say(self, line: str) -> None:
        with results_in(self.output):
            typer.echo(line)


def _restored(config: Any, picture: Path, folder: Path, run: Callable[[Path], Any]) -> dict[str, Any]:
    """The row of a picture that `run(partial)` restores, or of what is wrong with it, which is said."""
    from invdiff.machine import out_of_memory

    try:
        return _row(RESTORED, picture, folder, run_into(folder, config, run).report)
    except InputError as error:
        if "No space left" in str(error):       # nor for the next
            raise
        said = " ".join(str(error).split())
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        said = "memory: it does not fit; take it smaller, or a machine with more memory"
    typer.echo(f"error: {said if str(picture) in said else f'{picture}: {said}'}", err=True)
    return {"picture": str(picture), "folder": "", "status": FAILED, "note": said}


def _kept(config: Any, folder: Path) -> dict[str, Any] | None:
    """The report of a finished result of this config that is younger than the files that it names."""
    from invdiff.io.results import holds_result
    from invdiff.priors.names import file_of

    if not holds_result(folder, config.model_dump()):
        return None
    made = (folder / "report.json").stat().st_mtime
    named = (*config.files, *map(file_of, (config.prior, *config.other_priors)))
    paths = [Path(part) for name in named for part in (name, name.rpartition(":")[0]) if part]      # kernels.npz:NAME
    read = [path for path in paths if path.is_file()]
    if any(path.stat().st_mtime > made for path in read):
        return None
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        _row(KEPT, folder, folder, report)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):       # another's, or damaged
        return None
    return report


def _row(status: str, picture: Path, folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The row of a picture, with what its report says that is not to be missed."""
    unusual = report.get("novelty", {}).get("unusual")
    guess = report.get("noise_level", {}).get("guess")
    notes = ["unlike the images the prior was tried on" if unusual else "",
             "the noise level is a guess, give sigma_y" if guess else ""]
    psnr = {name: report["metrics"].get(name, {}).get("psnr") for name in ("restored", "measurement")}
    return {"picture": str(picture), "folder": str(folder), "status": status, "psnr": psnr["restored"],
            "psnr_measurement": psnr["measurement"], "residual": report["consistency"]["verdict"],
            "half_width": report["interval"].get("half_width"), "sigma_y": report["sigma_y"], "seconds": report["seconds"],
            "note": "; ".join(filter(None, notes))}
