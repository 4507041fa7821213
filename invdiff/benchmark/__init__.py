"""Tasks x priors x methods x images: `invdiff benchmark CONFIG`."""
