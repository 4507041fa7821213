"""How sure a restoration may be: what was measured on images whose truth is known, and what that says of a run."""
