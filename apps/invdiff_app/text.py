"""Every word on the pages."""

import re
from typing import Any

TITLE = "invdiff"
PAGES = {"restore": "Restore", "compare": "Compare", "mri": "MRI", "explained": "Diffusion, explained"}
ABOUT = ("Restores images from blurred, noisy or incomplete measurements: draws several images that look natural and explain "
         "the measurement. Where the measurement says little, the prior fills in, and may be plausible and wrong.")

WENT_WRONG = "Something went wrong here that is not your fault; the server's log has it. Try another setting, or reload."
NO_MEMORY = "That takes more memory than there is; choose a smaller image or fewer samples."
ONE_JOB = "One job at a time: wait for yours to finish, or stop it first."
ITS_PAGE = "Go to the page {}"
QUEUE_FULL = "Too many jobs are waiting; try again in a few minutes."
JOB_GONE = "The job in this address is finished and forgotten, or was never here; start another one."
STARTING = "Loading the library, once …"

# settings
IMAGE = "Image"
SOURCE = "From"
SOURCES = {"bundled": "A bundled photo", "upload": "A file of yours"}
PHOTO = "Photo"
PHOTOS = {"astronaut": "Astronaut", "chelsea": "Cat", "coffee": "Coffee cup", "rocket": "Rocket"}
SIZE = "Size, pixels"
UPLOAD = "PNG, JPEG, TIFF, WebP, BMP or .npy, 8 or 16 bits; a volume as NIfTI, or fastMRI HDF5 with images"
SLICE = "Slice"
IS_KSPACE = "open it on the page MRI"
EMPTY_SLICE = "slice {} is empty; choose another one"
KIND = "It is"
KINDS = {"truth": "a clean image, to degrade", "input": "a measurement, to restore"}
UPLOAD_FIRST = "Choose a file, and it is shown here."
PRIVATE = "It stays on the server while this page is open, and a result for half an hour at most."
SHIFTED = "Its values go from {:g} to {:g}; here they are shifted and scaled, to go from 0 to 1."
TRANSPARENT = "What is transparent in it is laid over white."
SCALED = "Scaled down from {} × {} to {} × {} pixels, to be restored in reasonable time."
TOO_LARGE = ("The restored image would have {} × {} pixels, and this app takes {} × {} at most; crop it, or use the command "
             "line.")
NO_PICTURE = ("A measurement of compressed sensing is a list of numbers and no image: restore it on the command line, or "
              "give a clean image, to degrade.")
TASK = "What happened to it"
TASKS = {"deblur": "Blur", "motion-deblur": "Camera shake", "inpaint": "Missing pixels", "sr": "Too few pixels",
         "denoise": "Noise alone", "cs": "Compressed sensing"}
OPERATOR = "Kind"
OPERATORS = {
    "denoising": "noise", "gaussian_blur": "Gaussian", "uniform_blur": "uniform", "defocus_blur": "out of focus",
    "motion_blur": "random path", "random_inpainting": "random pixels", "row_inpainting": "rows", "box_inpainting": "a box",
    "half_inpainting": "one half", "mask_inpainting": "a mask", "super_resolution": "means over blocks",
    "bicubic_super_resolution": "bicubic", "gaussian_super_resolution": "Gaussian", "compressed_sensing": "random sums",
    "dct_sensing": "random cosines",
}
PARAMETERS = {
    "sigma": "Width of the blur, pixels", "boundary": "Beyond the border", "size": "Size, pixels", "radius": "Radius, pixels",
    "intensity": "Strength of the shake", "seed": "Seed of the pattern", "keep": "Share that is kept", "top": "Top, pixels",
    "left": "Left, pixels", "height": "Height, pixels", "width": "Width, pixels", "missing": "Half that is missing",
    "factor": "Factor", "rate": "Numbers per pixel",
}
FIELDS = {**PARAMETERS, "kernel": "The blur", "sigma_y": "Noise"}       # what an error may begin with
HELP = {"boundary": "What lies beyond the image. “valid” takes nothing for known there, which is right for a real photo: the "
                    "image is larger than its measurement, by the border that the blur has mixed in. “auto” tells a real photo "
                    "from a simulation that wraps around, and cuts that border off again."}
NOISE = "Noise (standard deviation, white is 1)"
WIDTH_AUTO = "Estimate it from the image"
WIDTH_AUTO_HELP = "Ten widths and more are tried on the part of the image with the most detail, which takes some minutes."
WIDTH_TOO_SMALL = ("The width of a blur is estimated from an image of {0} × {0} pixels and more, and this one has {1} × {2}; "
                   "untick “Estimate it from the image”, and choose a width.")
TAKE_WIDTH = "From now on take {:g} pixels, and estimate it no more"
NOISE_AUTO = "Estimate the noise from the image"
METHOD = "Method"
PRIOR = "Prior"
SAMPLER = "Sampler"
STEPS = "Steps"
SAMPLES = "Samples"
SEED = "Seed"
DRAW = "Paint with the pointer over what is missing. Without a pointer, choose the kind “a box” and give numbers."
BRUSH = "Brush"
UNDO = "Undo"
CLEAR = "Clear"
DRAW_FIRST = "Paint over what is missing, and it can be filled in."
MASKS = {"drawn": "painted here", "file": "a file of yours", "transparent": "what is transparent in the image"}
MASK_FILE = "PNG of the image's size: white is measured, black and transparent are missing"
MASK_FIRST = "Choose a file with the mask, and what is missing can be filled in."
MASK_SIZE = ("The mask has {} × {} pixels, and the image to restore {} × {}; give a mask of the same size.")
SAMPLERS = {
    "moment_matching": "Moment matching (default)", "pigdm": "ΠGDM", "diffpir": "DiffPIR", "dps": "DPS", "ddrm": "DDRM",
    "ddnm": "DDNM", "dds": "DDS", "ilvr": "ILVR", "daps": "DAPS", "split_gibbs": "Split Gibbs", "red_diff": "RED-diff",
    "annealed_langevin": "Annealed Langevin", "twisted_smc": "Twisted SMC",
}

# prior cards
CARD = "About the prior “{}”"
CARD_DATA = "Trained on: {}."
CARD_LICENCE = "Licence: {}."
CARD_USE = "Meant for: {}."
CARD_LEVELS = "Noise levels: {:g} to {:g}."
CARD_LIMIT = ("It knows what it was trained on: other images get the texture of those. A restored face, text or lesion may be "
              "plausible and wrong.")
CARD_SCORES = "Denoising at noise {} of 255: {} dB."

# the picture before a run
CLEAN = "Clean"
MEASURED = "Measured"
BACK_PROJECTED = "Measurement, back-projected"
MASK = "Mask"
MASK_CAPTION = "black is missing"
VALUES = "{} values, noise {:g}"

# a run
START = "Restore"
STOP = "Stop"
QUEUED = "Waiting: {} before this one."
PREPARING = {"restore": "Preparing: the measurement, the prior …", "compare": "Preparing the next run …",
             "mri": "Preparing the scan: coil maps, noise, and the reconstruction beside it …"}
ESTIMATING = "Estimating the width of the blur, {} of about {}"
FINISHING = "Finishing: how sure is it, scores …"
STOPPING = "Stopping …"
STEP = "Step {} of {}{}"
LEFT = ", about {} left"
ESTIMATE = "The estimate so far"
RESULT = "{}: {}"
OTHERWISE = "Made with other settings than those on the page now."
STOPPED = "Stopped. {}"
STOPPED_KEPT = "Shown are the samples that were finished: {} of {}."
STOPPED_NOTHING = "No sample was finished; below is the estimate it had come to."
SAMPLE = "Sample {}"
SPREAD = "Spread (std)"
SPREAD_CAPTION = "black is 0, bright {:.3f}"
FILLED = "Filled in by the prior"
FILLED_CAPTION = "what the measurement does not fix; black is 0, bright {:.3f}"
MEASURED_SHARE = "How much is measured"
MEASURED_SHARE_CAPTION = "white: this pixel is known from the data; black: it is the prior's"
COVERED = "{:.1%} of the truth lies within the {:.0%} interval."
TABS = ("Before and after", "Samples and spread", "Numbers", "Repeat it")
SLIDER = "Position of the line between the measurement and the restoration, percent"
ZOOM = "Zoom, all pictures together"
ZOOM_HINT = "Double click, or the keys + − 0 and arrows"
ZOOM_WHOLE = "Whole"
ZOOM_IN = "Zoom in"
ZOOM_OUT = "Zoom out"
PSNR = "PSNR, dB"
SSIM = "SSIM"
NO_TRUTH = "The truth is not known here, so there is nothing to score against."
SINGLE = "A single sample has no spread, so there is neither std nor interval; take more samples."
CALLS = "{:g} network calls"
GRADIENTS = " and {:g} gradients of the network"
COST = "{} a sample, {:.1f} s on {}."
COMMAND = "The same on the command line"
COMMAND_FILES = "It needs {}."
COMMAND_OURS = " The download of a result has {}."
YAML = "The same as YAML, for `invdiff restore --config`"
DOWNLOAD = "Download"
DOWNLOAD_ALL = "Everything (.zip)"
DOWNLOAD_PNG = "Restored image (.png)"
DOWNLOAD_H5 = "Samples, mean, spread (.h5)"


def trust(report: dict[str, Any]) -> list[str]:
    """What a restoration is worth without its truth, a sentence each; the library's own words."""
    parts = ("blur", "boundary", "noise_level", "few_steps", "consistency", "provenance", "unjudged")
    said = [report[name]["words"] for name in parts if name in report]
    interval = report["interval"]
    if report["samples"] == 1:
        return [*said, SINGLE]
    if not interval["factor"]:
        return said
    width = f", here {interval['half_width']:.3f} on average" if "half_width" in interval else ""
    return [*said, f"The {interval['level']:.0%} interval at a pixel is {interval['factor']:.2f} times the spread, pooled over "
                   f"neighbouring pixels, to each side{width} ({interval['source']})."]


def warning(report: dict[str, Any]) -> str | None:
    """What to say where the prior is out of its depth."""
    novelty = report.get("novelty")
    return novelty["words"] if novelty and novelty["unusual"] else None


def restored(several: bool) -> str:
    """What the mean of the samples is called: of one, it is that one."""
    return "Restored (mean)" if several else "Restored"


def rows(several: bool) -> dict[str, str]:
    """The titles of a table's rows, by the name of what is scored."""
    return {"measurement": "Measurement", "restored": restored(several), **({"sample": "One sample"} if several else {})}


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def sampler(name: str) -> str:
    return SAMPLERS.get(name, name).removesuffix(" (default)")


# what the library says of its options and classes, as the pages say it
_ON_THE_PAGE: dict[str, Any] = {
    r"(--set )?operator\.acceleration=": "acceleration ",
    r"^operator: image(?=: )": "the mask",
    r"operator\.center=\d+( by default)? keeps": "the mask always keeps",
    r"(--set \S+\w\]?)": r"\1 on the command line",
    r"and (?:that of )?\w+ (has none|is none|is no such one); these": r"and this one \1; these",
    r"(?<=would work: )[\w, ]+": lambda found: ", ".join(sampler(name) for name in found[0].split(", ")),
}


def sentence(error: Any) -> str:
    """An error's message for the page: without the folders of the server, with the page's names, and not as Markdown."""
    said = " ".join(str(error).split())
    plain = re.sub(r"(/[\w.\-]+)+/([\w.\-]+)", r"\2", said)
    plain = re.sub(r"[0-9a-f]{24}(\.\w+)?", "the file", plain)
    plain = re.sub(r"^(?:operator(?:: |\.))?(\w+)(?=: )", lambda found: FIELDS.get(found[1], found[0]), plain)
    for words, ours in _ON_THE_PAGE.items():
        plain = re.sub(words, ours, plain)
    if plain.startswith("the file") or not said.startswith("/"):            # a file of the user's keeps its name
        plain = plain[:1].upper() + plain[1:]
    return literal(plain[:400])


def literal(said: str) -> str:
    """What is to be read as it stands, and not as Markdown."""
    return re.sub(r"([\\`*_\[\]<>$#~])", r"\\\1", said)


def cost(report: dict[str, Any]) -> str:
    """What a run took."""
    gradients = GRADIENTS.format(report["network_gradients"]) if report["network_gradients"] else ""
    return COST.format(CALLS.format(report["network_calls"]) + gradients, report["seconds"], report["device"])
