"""Sets of images by number, decoded when they are asked for: to train on, to calibrate with, to score."""
