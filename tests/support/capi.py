"""The C calls that the tests need, over ctypes; arrays in, arrays out."""

from __future__ import annotations

import ctypes as c
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("FEATINV_BUILD", ROOT / "build"))
COMMAND = BUILD / "featinv"
LIBRARY = BUILD / "libfeatinv.so"
REFERENCE = Path(os.environ.get("FEATINV_REFERENCE", ROOT / "tests" / "data"))
DTYPES = {"float32": (2, 32), "uint8": (1, 8), "int64": (0, 64), "float64": (2, 64)}
NAMES = {"fp32": 1, "fp16": 2, "bf16": 3}


class Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("device_type", c.c_int32), ("device_id", c.c_int32),
                ("ndim", c.c_int32), ("dtype_code", c.c_uint8), ("dtype_bits", c.c_uint8),
                ("dtype_lanes", c.c_uint16), ("shape", c.POINTER(c.c_int64)),
                ("strides", c.POINTER(c.c_int64)), ("byte_offset", c.c_uint64)]


class Image(c.Structure):
    _fields_ = [("pixels", c.c_void_p), ("width", c.c_int32), ("height", c.c_int32),
                ("row_bytes", c.c_int64)]


class SessionOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("threads", c.c_int32), ("device", c.c_char_p),
                ("dtype", c.c_int32), ("deterministic", c.c_int32), ("batch", c.c_int32),
                ("reserved", c.c_int32)]


class SampleOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("samples", c.c_int32), ("steps", c.c_int32),
                ("spacing", c.c_int32), ("scale", c.c_double), ("hint_scale", c.c_double),
                ("strength", c.c_double), ("eta", c.c_double), ("seed", c.c_uint64),
                ("guess_mode", c.c_int32), ("legacy_bytes", c.c_int32), ("context", c.c_char_p),
                ("uncontext", c.c_char_p), ("context_data", c.POINTER(Tensor)),
                ("uncontext_data", c.POINTER(Tensor)), ("noise", c.POINTER(Tensor)),
                ("step_noise", c.POINTER(Tensor)), ("trace_x", c.POINTER(Tensor)),
                ("trace_x0", c.POINTER(Tensor)), ("progress", c.c_void_p),
                ("user_data", c.c_void_p), ("completed", c.POINTER(c.c_int64))]


class DenoiseOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("strength_count", c.c_int32),
                ("strengths", c.POINTER(c.c_double)), ("no_control", c.c_int32),
                ("residual_count", c.c_int32), ("hint", c.POINTER(Tensor)),
                ("residuals", c.POINTER(Tensor))]


class FeatinvError(Exception):
    """A status with the library's text."""

    def __init__(self, status: int, text: str):
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


lib = c.CDLL(str(LIBRARY))
lib.featinv_last_error.restype = c.c_char_p
lib.featinv_status_name.restype = c.c_char_p


def check(status: int) -> None:
    if status:
        raise FeatinvError(status, lib.featinv_last_error().decode())


def view(array: np.ndarray | None) -> Tensor | None:
    """A borrowed view; the array must be C-contiguous."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    code, bits = DTYPES[str(array.dtype)]
    shape = (c.c_int64 * max(array.ndim, 1))(*array.shape)
    tensor = Tensor(array.ctypes.data, 1, 0, array.ndim, code, bits, 1, shape, None, 0)
    tensor.keep = (array, shape)
    return tensor


def ref(tensor: Tensor | None):
    return c.byref(tensor) if tensor is not None else None


def pointer(tensor: Tensor | None):
    return c.pointer(tensor) if tensor is not None else None


def f32(array) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


class Session:
    """A bundle opened on a device."""

    def __init__(self, bundle, device="cpu", dtype="fp32", batch=0, threads=0):
        self.model, self.handle = c.c_void_p(), c.c_void_p()
        check(lib.featinv_model_open(c.byref(self.model), str(bundle).encode(), None))
        options = SessionOptions()
        check(lib.featinv_session_options_init(c.byref(options), c.c_size_t(c.sizeof(options))))
        options.device, options.dtype = device.encode(), NAMES[dtype]
        options.batch, options.threads = batch, threads
        check(lib.featinv_session_create(c.byref(self.handle), self.model, c.byref(options)))

    def close(self):
        lib.featinv_session_destroy(self.handle)
        lib.featinv_model_release(self.model)

    def extract(self, images, map_shape, classes=0):
        """uint8 (H,W,3) arrays of any size → maps, logits."""
        maps = np.zeros((len(images), *map_shape), np.float32)
        logits = np.zeros((len(images), classes), np.float32)
        array = (Image * len(images))(*[
            Image(i.ctypes.data, i.shape[1], i.shape[0], i.strides[0]) for i in images])
        m, l = view(maps), view(logits)
        check(lib.featinv_extract(ref(m), ref(l) if classes else None, self.handle, array,
                                  c.c_int64(len(images)), None))
        return maps, logits

    def score_maps(self, samples, maps):
        """uint8 (N,H,W,3) samples as the backbone sees them: their maps, like `maps` in shape."""
        out = np.zeros_like(maps)
        scores = (c.c_double * (16 * len(samples)))()  # featinv_score is 15 doubles wide
        s, m, o = view(samples), view(maps), view(out)
        check(lib.featinv_score_samples(scores, ref(o), self.handle, ref(s), ref(m), None, None))
        return out

    def denoise(self, x, t, context, hint_map, *, strengths=None, no_control=False, hint=None,
                residuals=None, prediction=True):
        options = DenoiseOptions()
        check(lib.featinv_denoise_options_init(c.byref(options), c.c_size_t(c.sizeof(options))))
        if strengths is not None:
            values = (c.c_double * len(strengths))(*strengths)
            options.strengths, options.strength_count = values, len(strengths)
        options.no_control = int(no_control)
        keep = [view(hint)]
        options.hint = pointer(keep[0])
        if residuals is not None:
            views = (Tensor * len(residuals))(*[view(r) for r in residuals])
            options.residuals, options.residual_count = views, len(residuals)
        out = np.zeros_like(f32(x)) if prediction else None
        args = [view(f32(x)) if x is not None else None,
                view(np.ascontiguousarray(t, np.int64)) if t is not None else None,
                view(f32(context)) if context is not None else None, view(f32(hint_map))]
        target = view(out)
        check(lib.featinv_denoise(ref(target), self.handle, *[ref(a) for a in args],
                                  c.byref(options)))
        return out

    def sample(self, maps, latent, *, image=None, context=None, uncontext=None, noise=None,
               step_noise=None, trace=None, **settings):
        """Latents (and images of shape `image`); settings are fields of the options."""
        options = SampleOptions()
        check(lib.featinv_sample_options_init(c.byref(options), c.c_size_t(c.sizeof(options)),
                                              self.model))
        for name, value in settings.items():
            setattr(options, name, value)
        tensors = {"context_data": context, "uncontext_data": uncontext, "noise": noise,
                   "step_noise": step_noise}
        keep = []
        for name, array in tensors.items():
            if array is not None:
                keep.append(view(f32(array)))
                setattr(options, name, pointer(keep[-1]))
        lanes = len(maps) * options.samples
        traces = None
        if trace:
            traces = [np.zeros((trace, lanes, *latent), np.float32) for _ in range(2)]
            keep += [view(traces[0]), view(traces[1])]
            options.trace_x, options.trace_x0 = pointer(keep[-2]), pointer(keep[-1])
        latents = np.zeros((lanes, *latent), np.float32)
        images = np.zeros((lanes, *image), np.uint8) if image else None
        i, z, m = view(images), view(latents), view(f32(maps))
        check(lib.featinv_sample(ref(i), ref(z), self.handle, ref(m), c.byref(options)))
        return latents, images, traces

    def encode(self, images, latent):
        mean = np.zeros((len(images), *latent), np.float32)
        logvar = np.zeros_like(mean)
        m, l, i = view(mean), view(logvar), view(np.ascontiguousarray(images))
        check(lib.featinv_encode(ref(m), ref(l), self.handle, ref(i), None))
        return mean, logvar

    def decode(self, latents, out, legacy=False):
        o, z = view(out), view(f32(latents))
        check(lib.featinv_decode(ref(o), self.handle, ref(z), c.c_int32(legacy), None))
        return out


def run(*args, expect=0, timeout=600, **kwargs):
    """The command; checks the exit code."""
    result = subprocess.run([str(COMMAND), *map(str, args)], capture_output=True, text=True,
                            timeout=timeout, **kwargs)
    assert result.returncode == expect, (args, result.returncode, result.stdout, result.stderr)
    return result


def export(*args, out: Path, timeout=900) -> Path:
    """A bundle made by the exporter."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "bindings" / "python"))
    result = subprocess.run([sys.executable, "-m", "featinv.export", *map(str, args), "-o", out],
                            capture_output=True, text=True, timeout=timeout, env=environment)
    assert result.returncode == 0, result.stderr
    return out


def scaled(value, reference) -> float:
    """Largest absolute difference over the largest absolute reference value."""
    return float(np.abs(np.asarray(value, np.float64) - reference).max() / np.abs(reference).max())
