"""How a recording in tests/data differs from the whole one that tests/data/thin.py made it from.

Each function takes either, so the tests run on both.
"""

from __future__ import annotations

import numpy as np

# Odd, so that the positions kept fall on every phase of a stride or an upsampling by a power of 2.
STRIDE = 3


def kept(field, recorded: np.ndarray):
    """The positions of a computed field (..., H, W) that its recording holds: all of them, or every
    third row and column. An array or a tensor, as given."""
    part = field if tuple(field.shape) == recorded.shape else field[..., ::STRIDE, ::STRIDE]
    assert tuple(part.shape) == recorded.shape, (field.shape, recorded.shape)
    return part


def encoder_input(image_u8: np.ndarray) -> np.ndarray:
    """Bytes (n, H, W, 3) as the encoder takes them: float32 (n, 3, H, W) in [-1, 1]; bit for bit
    the recording's own."""
    levels = image_u8.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
