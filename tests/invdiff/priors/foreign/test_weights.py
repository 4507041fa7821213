"""Weights that others wrote."""

import warnings

import pytest
import torch

from invdiff.errors import InputError
from invdiff.priors.foreign.weights import read_state


def test_a_torchscript_file_is_refused_in_one_sentence_and_without_a_warning(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "ts.pt"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match=r"ts\.pt: cannot be read as weights"):
            read_state(tmp_path / "ts.pt")
    assert not seen
