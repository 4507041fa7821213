"""Files that no loader may trust, and networks to fill others with."""

import pickle
from pathlib import Path

import torch
from deepinv.models import diffunet as blocks
from torch import nn


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


class Reference(nn.Module):
    """The U-Net of guided-diffusion from its published options, by deepinv's port of its blocks."""

    def __init__(self, width=32, mult=(1, 2, 2), depth=2, attention=(2, 4), scale_shift=True, updown=True, classes=0,
                 out=6, heads=None, new_order=False, head_channels=16):
        super().__init__()
        emb, self.width = 4 * width, width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if classes:
            self.label_emb = nn.Embedding(classes, emb)

        def res(c, o, **k):
            return blocks.ResBlock(c, emb, 0.0, out_channels=o, use_scale_shift_norm=scale_shift, **k)

        def attn(c):
            return blocks.AttentionBlock(c, num_heads=heads or 1, num_head_channels=-1 if heads else head_channels,
                                         use_new_attention_order=new_order)

        c = width * mult[0]
        stages, kept, ds = [blocks.TimestepEmbedSequential(nn.Conv2d(3, c, 3, padding=1))], [c], 1
        for level, m in enumerate(mult):
            for _ in range(depth):
                layers = [res(c, width * m)]
                c = width * m
                stages.append(blocks.TimestepEmbedSequential(*layers, *([attn(c)] if ds in attention else [])))
                kept.append(c)
            if level < len(mult) - 1:
                stages.append(blocks.TimestepEmbedSequential(res(c, c, down=True) if updown else blocks.Downsample(c, True)))
                kept.append(c)
                ds *= 2
        self.input_blocks = nn.ModuleList(stages)
        self.middle_block = blocks.TimestepEmbedSequential(res(c, c), attn(c), res(c, c))
        self.output_blocks = nn.ModuleList()
        for level, m in reversed(list(enumerate(mult))):
            for i in range(depth + 1):
                layers = [res(c + kept.pop(), width * m)]
                c = width * m
                layers += [attn(c)] if ds in attention else []
                if level and i == depth:
                    layers.append(res(c, c, up=True) if updown else blocks.Upsample(c, True))
                    ds //= 2
                self.output_blocks.append(blocks.TimestepEmbedSequential(*layers))
        self.out = nn.Sequential(blocks.normalization(c), nn.SiLU(), nn.Conv2d(width * mult[0], out, 3, padding=1))

    def forward(self, x, t, label=None):
        emb = self.time_embed(blocks.timestep_embedding(t, self.width))
        if label is not None:
            emb = emb + self.label_emb(label)
        kept = []
        for stage in self.input_blocks:
            x = stage(x, emb)
            kept.append(x)
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, kept.pop()], 1), emb)
        return self.out(x)
