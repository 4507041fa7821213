"""Figures of diffusion's theory, drawn by the code they are about. Each function in these files returns a matplotlib Figure."""
