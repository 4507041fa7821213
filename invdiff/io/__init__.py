"""Files in and out: images, arrays, result folders."""
