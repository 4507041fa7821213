"""The record of a comparison as a Markdown page."""

from collections.abc import Callable, Iterator

LABELS = {"moment_matching": "MomentMatching", "pigdm": "ΠGDM", "diffpir": "DiffPIR", "ddrm": "DDRM", "dps": "DPS",
          "ddnm": "DDNM", "dds": "DDS", "ilvr": "ILVR", "red_diff": "RED-diff", "daps": "DAPS", "split_gibbs": "split Gibbs",
          "twisted_smc": "twisted SMC", "deepinv_ddrm": "deepinv DDRM", "deepinv_diffpir": "deepinv DiffPIR",
          "deepinv_dps": "deepinv DPS"}
TASKS = {"deblur": "deblur", "motion-deblur": "motion deblur", "inpaint": "inpaint 50 %", "sr": "super-resolution ×2",
         "sr4": "super-resolution ×4", "cs": "compressed sensing 25 %"}


def to_markdown(record: dict) -> str:
    """A page with what was done, a table of PSNR / SSIM by method and task, and one of seconds.

    record: {"made": how, "hardware": text, "tasks": {task: {method: {"psnr", "ssim", ...}}}}, possibly unfinished.
    """
    tasks = record["tasks"]
    methods = list(dict.fromkeys(name for task in tasks.values() for name in task))
    samples = record["made"]["samples"]
    quality = [row for method in methods for row in _quality(method, tasks, samples)]
    seconds = [_row(_label(method), tasks, method, lambda s: f"{s['seconds']:.2f}")
               for method in methods if method != "measurement"]
    head = ["method", *(TASKS.get(task, task) for task in tasks)]
    return "\n".join([
        "# Comparison", "", *_header(record), "",
        "## PSNR in dB / SSIM", "", *_table(head, quality), "",
        f"## Seconds for one estimate of one image, on {record['hardware']}", "", *_table(head, seconds), ""])


def _header(record: dict) -> list[str]:
    made = record["made"]
    steps = f"{made['steps']} steps" if made["steps"] else "each sampler's default number of steps"
    tv = made["tv"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return [
        "Written by `python -m invdiff.evaluation.comparison`. Means over images; a photograph's peak is 1, estimates are "
        "clipped to [0, 1], SSIM has a Gaussian window (11 × 11, standard deviation 1.5).", "",
        f"- Images: {made['count']} central crops of {made['size']} × {made['size']} from {made['images']}.",
        f"- Measurement: noise of standard deviation {made['sigma_y']}. Blur is circular, Gaussian of 1.6 pixels or a camera "
        "shake; its row is the measurement itself, for super-resolution its bicubic enlargement, for compressed sensing its "
        "back-projection.",
        f"- TV: total variation, {tv['iterations']} iterations, its weight chosen for each task with the truth in hand, from "
        f"{', '.join(f'{w:g}' for w in tv['weights'])}.",
        f"- Samplers: prior {made['prior']}; {steps}; {made['samples']} samples of each image, seed 0; {made['precision']} on "
        f"{made['device']}; parameters the same for all tasks.",
        f"- Versions: {versions}.",
    ]


def _quality(method: str, tasks: dict, samples: int) -> Iterator[list[str]]:
    def both(scores: dict) -> str:
        return f"{scores['psnr']:.2f} / {scores['ssim']:.3f}"

    if method in ("measurement", "tv"):
        yield _row(_label(method), tasks, method, both)
        return
    calls = next(task[method]["calls"] for task in tasks.values() if method in task)
    yield _row(f"{_label(method)}, one sample ({calls:g} network calls)", tasks, method, both)
    if samples > 1:
        yield _row(f"{_label(method)}, mean of {samples}", tasks, method, lambda scores: both(scores["mean"]))


def _label(method: str) -> str:
    return {"measurement": "measurement", "tv": "TV, tuned"}.get(method) or LABELS.get(method, method)


def _row(label: str, tasks: dict, method: str, text: Callable[[dict], str]) -> list[str]:
    return [label, *(text(task[method]) if method in task else "" for task in tasks.values())]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
