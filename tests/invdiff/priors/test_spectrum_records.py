"""Error spectra measured on request, stored by name, and found again."""

import json

import pytest
import torch
from deepinv.models import Denoiser, MedianFilter

import operators
from invdiff import InputError, load_prior
from invdiff.posterior import MomentMatching
from invdiff.priors import spectrum_records
from invdiff.priors.foreign.adapter import ForeignDenoiser
from invdiff.priors.latent import LatentPrior
from invdiff.priors.spectrum_records import LEVELS
from invdiff.restoration import restore
from invdiff.simulation import simulate


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INVDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spectra"


@pytest.fixture
def images():
    return list(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A TorchScript denoiser, f(x, sigma) = x weight."""
    def write(weight=0.5):
        class Shrink(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.tensor(weight))

            def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
                return x * self.weight

        path = tmp_path / "net.pt"
        torch.jit.save(torch.jit.script(Shrink()), path)
        return path
    monkeypatch.chdir(tmp_path)
    return write


def stored(name, images):
    record = spectrum_records.measure(name, load_prior(name), images, "a test")
    spectrum_records.write_record(spectrum_records.place(name), record)
    return record


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_was_stored_is_found_by_name_and_used(file, cache, images):
    name = f"torchscript:{file()}"
    assert load_prior(name).error_spectrum(3) is None
    record = stored(name, images)
    prior = load_prior(name)
    for channels, key in ((3, "spectrum"), (1, "spectrum_grey")):
        assert prior.error_spectrum(channels).to_dict() == record[key]
    problem = simulate(operators.GaussianBlur((3, 32, 32), sigma=1.0), images[0][None], 0.05)
    assert restore(problem, prior, MomentMatching(steps=2)).report["error_spectrum"] == "a test"
    assert load_prior("torchscript:net.pt").error_spectrum(3) is not None      # the same file, by another path
    assert load_prior(f"{name}?stride=2").error_spectrum(3) is None            # another denoiser, until it is measured
    assert [p.suffix for p in cache.iterdir()] == [".json"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_spectrum_of_other_weights_is_not_used(file, cache, images):
    name = f"torchscript:{file()}"
    stored(name, images)
    file(0.25)
    with pytest.warns(UserWarning, match="weights have changed since it was calibrated"):
        assert load_prior(name).error_spectrum(3) is None
    spectrum_records.place(name).write_text("{")
    with pytest.warns(UserWarning, match="truncated"):
        assert load_prior(name).error_spectrum(3) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_spectrum_from_a_file(file, cache, images, tmp_path):
    name = f"torchscript:{file()}"
    record = spectrum_records.measure(name, load_prior(name), images, "mine")
    spectrum_records.write_record(tmp_path / "mine.json", record)
    assert load_prior(f"{name}?spectrum={tmp_path / 'mine.json'}").error_spectrum(3).source == "mine"
    with pytest.warns(UserWarning, match="was measured with other weights than those of natural"):
        assert load_prior(f"natural?spectrum={tmp_path / 'mine.json'}").error_spectrum(3).source == "mine"
    assert load_prior("natural").error_spectrum(3).source != "mine"


def test_the_measured_error_is_the_error(images):
    """D = 0: the error is the image itself at every level, and on grey images that of their mean."""
    class Nothing(Denoiser):
        def forward(self, x, sigma, **kwargs):
            return torch.zeros_like(x)

    count = []
    prior = ForeignDenoiser(Nothing(), {"name": "zero", "channels": 3})
    record = spectrum_records.measure("zero", prior, images, "a test", on_call=lambda: count.append(1))
    assert len(count) == spectrum_records.calls("zero", prior, images) == 2 * 2 * len(LEVELS)
    power = torch.tensor(record["spectrum"]["power"])
    torch.testing.assert_close(power[0], power[-1])
    grey = torch.tensor(record["spectrum_grey"]["power"])[0, 0]
    torch.testing.assert_close(power[0, 0] / 3, grey, rtol=1e-4, atol=0)         # luminance is sqrt(3) times the mean


@pytest.mark.parametrize("channels", [1, None])
def test_priors_of_other_channels(channels, images):
    prior = ForeignDenoiser(MedianFilter(kernel_size=3), {"name": "median", "channels": channels})
    record = spectrum_records.measure("median", prior, images, "a test")
    assert torch.tensor(record["spectrum"]["power"]).shape[1] == (channels or 3)
    assert ("spectrum_grey" in record) == (channels is None)
    known = spectrum_records.with_spectrum(prior, record)
    assert [known.error_spectrum(n) is not None for n in (1, 3)] == [True, channels is None]


def test_priors_that_cannot_be_measured(images):
    complex_valued = ForeignDenoiser(MedianFilter(), {"name": "mri", "channels": 2})
    latent = LatentPrior(MedianFilter(), MedianFilter())
    with pytest.raises(InputError, match="mine: is a prior of latents, whose error spectrum"):
        spectrum_records.measure("mine", latent, images, "a test")
    with pytest.raises(InputError, match="mri: is for images of 2 channels"):
        spectrum_records.measure("mri", complex_valued, images, "a test")
    broken = ForeignDenoiser(lambda x, sigma: x / 0, {"name": "broken", "channels": 3})
    with pytest.raises(InputError, match="not finite"):
        spectrum_records.measure("broken", broken, images, "a test")


def test_any_denoiser_answers_with_a_record(images):
    record = spectrum_records.measure("median", MedianFilter(kernel_size=3), images, "a test")
    prior = spectrum_records.with_spectrum(MedianFilter(kernel_size=3), record)
    assert prior.error_spectrum(3).source == "a test"
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(prior(x, 0.1), MedianFilter(kernel_size=3)(x))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', '{"format": "invdiff-spectrum-1", "spectrum": {}}',
                                  "shape", "negative"])
def test_a_bad_record_is_an_input_error(text, tmp_path, images):
    path = tmp_path / "record.json"
    if text in ("shape", "negative"):
        spectrum = {"sigmas": [0.1, 1.0], "frequencies": [0.0, 0.5], "power": [[[0.1, -0.1]], [[0.1, 0.1]]], "source": "x"}
        spectrum["power"] = [[0.1, 0.2]] if text == "shape" else spectrum["power"]
        text = json.dumps({"format": spectrum_records.FORMAT, "spectrum": spectrum})
    path.write_text(text)
    with pytest.raises(InputError, match=r"record\.json"):
        spectrum_records.read_record(path)
    with pytest.raises(InputError, match="cannot be read"):
        spectrum_records.read_record(tmp_path / "none.json")


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    spectrum_records.write_record(path, {"format": "old"})
    with pytest.raises(TypeError):
        spectrum_records.write_record(path, {"format": object()})
    assert json.loads(path.read_text()) == {"format": "old"}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot be written"):
        spectrum_records.write_record(path / "below.json", {})


def test_names_that_differ_have_places_that_differ(cache, tmp_path):
    names = ["natural", "deepinv:drunet", "deepinv:drunet-gray", "a/b.safetensors", "a-b.safetensors", "edm:x?class=1"]
    assert len({spectrum_records.place(n) for n in names}) == len(names)
    assert all(spectrum_records.place(n).parent == cache for n in names)
