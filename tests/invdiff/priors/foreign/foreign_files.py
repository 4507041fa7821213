"""Files that no loader may trust."""

import pickle
from pathlib import Path

import torch


class Evil:
    """Unpickled without care, it creates a file."""

    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return Path.touch, (Path(self.victim),)


def hostile(path, victim, kind):
    """Write a pickle that would create `victim`: as torch.save does, a zip or the old form, or plain."""
    if kind == "plain":
        path.write_bytes(pickle.dumps({"weight": Evil(victim)}))
    else:
        torch.save({"weight": torch.zeros(2), "evil": Evil(victim)}, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def randomised(network, std=0.05):
    """Every parameter drawn anew: freshly built networks have layers of zeros that hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            mean = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
    return network.eval().requires_grad_(False)
