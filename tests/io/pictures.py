"""Makes PNG and JPEG files, also of kinds that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type
KINDS = [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3),
         (8, 4), (16, 4), (8, 6), (16, 6)]  # (bit depth, colour type): all that PNG has
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]  # x, y, step in x, step in y


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, depth: int, kind: int, interlaced: bool = False) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0,
                                                  int(interlaced)))


def _rows(samples: np.ndarray, depth: int, rng: np.random.Generator) -> bytes:
    """Samples (H, W, C) → filtered rows; filters none, sub and up by turns."""
    out, above = [], None
    for values in samples:
        if depth == 16:
            row = values.astype(">u2").tobytes()
        elif depth == 8:
            row = values.astype(np.uint8).tobytes()
        else:
            bits = (values.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
            row = np.packbits(bits.astype(np.uint8)).tobytes()
        data = np.frombuffer(row, np.uint8)
        step = max(1, depth * samples.shape[2] // 8)
        kind = int(rng.integers(0, 3))
        if kind == 1:
            before = np.concatenate([np.zeros(step, np.uint8), data])[:len(data)]
        else:
            before = above if kind == 2 and above is not None else np.zeros_like(data)
        out.append(bytes([kind]) + (data - before).tobytes())
        above = data
    return b"".join(out)


def png(width: int, height: int, depth: int, kind: int, seed: int = 0, interlaced: bool = False,
        before: bytes = b"", after: bytes = b"", samples: np.ndarray | None = None) -> bytes:
    """A PNG of random samples; before and after: extra chunks around the pixels."""
    rng = np.random.default_rng(seed)
    if samples is None:
        samples = rng.integers(0, 1 << depth, (height, width, CHANNELS[kind]))
    if interlaced:
        parts = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        data = b"".join(_rows(part, depth, rng) for part in parts if part.size)
    else:
        data = _rows(samples, depth, rng)
    palette = b""
    if kind == 3:
        palette = chunk(b"PLTE", rng.integers(0, 256, 3 << depth, np.uint8).tobytes())
    packed = zlib.compress(data)
    half = len(packed) // 2
    return (header(width, height, depth, kind, interlaced) + palette + before
            + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:]) + after
            + chunk(b"IEND", b""))


def exif(orientation: int, big: bool = False, prefix: bytes = b"") -> bytes:
    """An EXIF block with another tag before the orientation."""
    e = ">" if big else "<"
    return (prefix + (b"MM" if big else b"II") + struct.pack(e + "HIH", 42, 8, 2)
            + struct.pack(e + "HHII", 0x0100, 4, 1, 77)
            + struct.pack(e + "HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(e + "I", 0))


def smooth(width: int, height: int, channels: int, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, channels) with gradients and edges, as photographs have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = []
    for _ in range(channels):
        a, b, c = rng.uniform(2, 9, 3)
        plane = 128 + 90 * np.sin(a * x + c) * np.cos(b * y) + 35 * ((x + y) % 0.3 > 0.15)
        planes.append(plane + rng.normal(0, 4, plane.shape))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def jpeg(width: int, height: int, mode: str, seed: int = 0, **options: object) -> bytes:
    """mode L, RGB or CMYK; options as Pillow's save takes them."""
    pixels = smooth(width, height, len(mode) if mode != "L" else 1, seed)
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode=None) \
        if mode != "CMYK" else Image.frombytes("CMYK", (width, height), pixels.tobytes())
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def ycck(data: bytes) -> bytes:
    """A CMYK file whose Adobe marker says YCCK: other colours, but a valid file."""
    at = data.index(b"Adobe")
    return data[:at + 11] + b"\x02" + data[at + 12:]


# Pairs of luma factors (horizontal, vertical) with equally many blocks an MCU: the header of a file
# of one kind, changed, makes it a file of the other, which Pillow reads but does not write.
LUMA = {"4:1:1": ((4, 1), (2, 2)), "4:4:0": ((1, 2), (2, 1))}  # and the kind they are made from


def resampled(width: int, height: int, kind: str, seed: int = 0, **options: object) -> bytes:
    """A JPEG of luma factors 4:1:1 or 4:4:0: a scrambled picture, but a valid file.

    It is written as one row of MCUs of the other factors and its header says the rest. progressive:
    the sides must be whole MCUs, since the padding blocks have no refinement.
    """
    (h, v), (other_h, other_v) = LUMA[kind]
    mcus = -(-width // (8 * h)) * -(-height // (8 * v))
    subsampling = {(2, 2): 2, (2, 1): 1}[other_h, other_v]
    data = jpeg(8 * other_h * mcus, 8 * other_v, "RGB", seed, subsampling=subsampling, **options)
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    frame = struct.unpack(">HBHHB", data[at + 2:at + 10])
    factors = data[at + 11]
    assert frame[1] == 8 and frame[4] == 3 and factors == 16 * other_h + other_v, frame
    return (data[:at + 5] + struct.pack(">HH", height, width) + data[at + 9:at + 11]
            + bytes([16 * h + v]) + data[at + 12:])
