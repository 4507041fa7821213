"""What tests of features and of references share."""

import pytest
from tiny_classifier import NAMES, TINY, tiny

from invdiff.evaluation.generative.classifier import save_classifier


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_classifier(path, tiny(), {"architecture": TINY, "classes": NAMES, "licence": "none"})
    return path
