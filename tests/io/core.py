"""The image and array functions of libfeatinv through ctypes, for comparison with Pillow and NumPy.

FEATINV_BUILD names another build folder than build/.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(os.environ.get("FEATINV_BUILD", ROOT / "build")) / "libfeatinv.so"

STATUS = {
    "OK": 0, "ARGUMENT": -3, "CAPACITY": -6, "WRITE": -10, "NOT_FOUND": -11, "READ": -12,
    "FORMAT": -13, "LIMIT": -14, "SHAPE": -15,
}
NAMES = {value: name for name, value in STATUS.items()}
DTYPES = {
    "float32": 1, "float16": 2, "float64": 4, "uint8": 5, "int32": 6, "int64": 7, "bool": 8,
    "int8": 9, "int16": 10, "uint16": 11, "uint32": 12, "uint64": 13,
}
DTYPE_NAMES = {value: name for name, value in DTYPES.items()}
KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLPack's type codes


class Image(ctypes.Structure):
    _fields_ = [("pixels", ctypes.c_void_p), ("width", ctypes.c_int32),
                ("height", ctypes.c_int32), ("row_bytes", ctypes.c_int64)]


class Info(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("dtype", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("reserved", ctypes.c_int32),
                ("shape", ctypes.c_int64 * 8)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Refused(Exception):
    """A call's status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{NAMES.get(status, status)}: {text}")
        self.status = NAMES.get(status, str(status))
        self.text = text


_lib = ctypes.CDLL(str(LIBRARY))
_lib.featinv_last_error.restype = ctypes.c_char_p
_P = ctypes.c_void_p
_lib.featinv_image_read.argtypes = [_P, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int32),
                                    ctypes.POINTER(ctypes.c_int32), ctypes.c_char_p,
                                    ctypes.c_int64]
_lib.featinv_image_write.argtypes = [ctypes.c_char_p, ctypes.POINTER(Image)]
_lib.featinv_image_resize.argtypes = [_P, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(Image),
                                      ctypes.c_int32]
_lib.featinv_array_read.argtypes = [_P, ctypes.c_size_t, ctypes.POINTER(Info), ctypes.c_char_p,
                                    ctypes.c_char_p, ctypes.c_int32]
_lib.featinv_array_write.argtypes = [ctypes.c_char_p, ctypes.POINTER(Tensor),
                                     ctypes.POINTER(ctypes.c_char_p), ctypes.c_int32,
                                     ctypes.c_int32]


def check(status: int) -> None:
    """Raises Refused for a failure, after checking that its text is one line."""
    if status == 0:
        return
    text = _lib.featinv_last_error().decode("utf-8", "replace")
    assert text and all(ord(c) >= 32 for c in text), f"not one line: {text!r}"
    raise Refused(status, text)


def image_size(path: os.PathLike | str, max_pixels: int = 0) -> tuple[int, int]:
    """(width, height) from the header alone."""
    width, height = ctypes.c_int32(), ctypes.c_int32()
    check(_lib.featinv_image_read(None, 0, width, height, os.fsencode(path), max_pixels))
    return width.value, height.value


def image_read(path: os.PathLike | str, max_pixels: int = 0) -> np.ndarray:
    """uint8 (H, W, 3)."""
    width, height = image_size(path, max_pixels)
    pixels = np.zeros((height, width, 3), np.uint8)
    again = ctypes.c_int32(), ctypes.c_int32()
    check(_lib.featinv_image_read(pixels.ctypes.data, pixels.nbytes, again[0], again[1],
                                  os.fsencode(path), max_pixels))
    assert (again[0].value, again[1].value) == (width, height)
    return pixels


def as_image(pixels: np.ndarray) -> Image:
    """A view of uint8 (H, W, 3) whose rows may lie apart."""
    assert pixels.dtype == np.uint8 and pixels.strides[1:] == (3, 1)
    return Image(pixels.ctypes.data, pixels.shape[1], pixels.shape[0], pixels.strides[0])


def image_write(path: os.PathLike | str, pixels: np.ndarray) -> None:
    check(_lib.featinv_image_write(os.fsencode(path), as_image(pixels)))


def image_resize(pixels: np.ndarray, width: int, height: int, bicubic: bool) -> np.ndarray:
    """uint8 (H, W, 3) → uint8 (height, width, 3)."""
    out = np.zeros((height, width, 3), np.uint8)
    check(_lib.featinv_image_resize(out.ctypes.data, width, height, as_image(pixels),
                                    int(bicubic)))
    return out


def array_read(path: os.PathLike | str, member: str | None = None,
               dtype: str | None = None) -> np.ndarray:
    """The array in C order, as stored or as `dtype`."""
    info = Info(ctypes.sizeof(Info))
    name = member.encode() if member is not None else None
    number = DTYPES[dtype] if dtype else 0
    check(_lib.featinv_array_read(None, 0, info, os.fsencode(path), name, number))
    shape = tuple(info.shape[:info.ndim])
    out = np.zeros(shape, dtype or DTYPE_NAMES[info.dtype])
    check(_lib.featinv_array_read(out.ctypes.data, out.nbytes, info, os.fsencode(path), name,
                                  number))
    return out


def as_tensor(array: np.ndarray) -> Tensor:
    """A view that keeps its shape and strides alive."""
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    strides = (ctypes.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
    return Tensor(array.ctypes.data, 1, 0, array.ndim, KINDS[array.dtype.kind],
                  8 * array.itemsize, 1, shape, strides, 0)


def array_write(path: os.PathLike | str, arrays: dict[str, np.ndarray] | list[np.ndarray],
                compress: bool = False) -> None:
    """A dict gives named arrays, a list nameless ones."""
    values = list(arrays.values()) if isinstance(arrays, dict) else arrays
    tensors = (Tensor * max(len(values), 1))(*(as_tensor(a) for a in values))
    names = None
    if isinstance(arrays, dict):
        names = (ctypes.c_char_p * max(len(values), 1))(*(n.encode() for n in arrays))
    check(_lib.featinv_array_write(os.fsencode(path), tensors, names, len(values), int(compress)))
