"""From raw k-space to a problem for `restore`, and from posterior samples to a volume."""
