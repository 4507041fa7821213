"""Writers of volumes: slices come one at a time, and what is written is complete or absent."""
