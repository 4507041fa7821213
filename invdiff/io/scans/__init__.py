"""Raw MR data in, one file a format; `open_scan` and `open_images` tell the format by the file's content."""

from invdiff.io.scans.opening import open_images, open_scan
from invdiff.io.scans.scan import Header, Images, RawSlice, Scan

__all__ = ["Header", "Images", "RawSlice", "Scan", "open_images", "open_scan"]
