"""featinv: from vision feature maps back to images.

`featinv.export` writes bundles; it needs torch and is imported on its own.
"""

__version__ = "0.1.0"
