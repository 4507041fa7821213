"""Reconstructions of others, to compare with: classical ones, and the samplers of deepinv."""
