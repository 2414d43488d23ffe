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


# ---- concepts -----------------------------------------------------------------------------------


class FitOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("method", c.c_int32), ("count", c.c_int32),
                ("max_count", c.c_int32), ("rule", c.c_int32), ("basis", c.c_int32),
                ("gamma", c.c_double), ("tau", c.c_double), ("outlier_quantile", c.c_double),
                ("max_rows", c.c_int64), ("memory", c.c_int64), ("seed", c.c_uint64),
                ("restarts", c.c_int32), ("dimension", c.c_int32), ("orthogonalize", c.c_int32),
                ("keep_coefficients", c.c_int32), ("weight", c.POINTER(c.c_double)),
                ("completeness", c.c_double), ("class_name", c.c_char_p),
                ("progress", c.c_void_p), ("user_data", c.c_void_p)]


class ConceptsDetails(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("channels", c.c_int32), ("count", c.c_int32),
                ("total", c.c_int32), ("offsets", c.POINTER(c.c_int32)),
                ("bases", c.POINTER(c.c_double)), ("labels", c.POINTER(c.c_int32)),
                ("label_ndim", c.c_int32), ("angle_first", c.c_int32),
                ("angle_second", c.c_int32), ("label_shape", c.c_int64 * 3),
                ("smallest_angle", c.c_double), ("smallest_singular", c.c_double),
                ("method", c.c_int32), ("basis", c.c_int32), ("gamma", c.c_double),
                ("tau", c.c_double), ("outlier_quantile", c.c_double), ("seed", c.c_uint64),
                ("rows", c.c_int64), ("rows_removed", c.c_int64), ("objective", c.c_double),
                ("stationarity", c.c_double), ("seconds", c.c_double),
                ("eigenvalues", c.POINTER(c.c_double)), ("eigenvalue_count", c.c_int32),
                ("reserved", c.c_int32), ("class_name", c.c_char_p)]


METHODS = {"given": -1, "mcd": 0, "kmeans": 1, "pca": 2}
RULES = {"ratio": 0, "completeness": 1, "gap": 2, "legacy": 3}
BASES = {"origin": 0, "centred": 1}
PROGRESS = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_int64, c.c_int64)
lib.featinv_concepts_release.argtypes = [c.c_void_p]
lib.featinv_session_cancel.argtypes = [c.c_void_p]


def doubles(array: np.ndarray):
    return array.ctypes.data_as(c.POINTER(c.c_double))


def copied(pointer_, shape, dtype) -> np.ndarray | None:
    """What a borrowed pointer holds, or None for NULL."""
    if not pointer_:
        return None
    return np.ctypeslib.as_array(pointer_, shape=tuple(shape)).astype(dtype)


class LinearSession:
    """A session without a model: linear algebra only."""

    def __init__(self, threads=1):
        self.handle = c.c_void_p()
        options = SessionOptions()
        check(lib.featinv_session_options_init(c.byref(options), c.c_size_t(c.sizeof(options))))
        options.device, options.threads = b"cpu", threads
        check(lib.featinv_session_create(c.byref(self.handle), None, c.byref(options)))

    def close(self):
        lib.featinv_session_destroy(self.handle)


def fit_options(**settings) -> FitOptions:
    """The defaults with some fields set; method, rule and basis by name, weight as an array,
    progress as a Python function of (done, total) that returns true to stop."""
    options = FitOptions()
    check(lib.featinv_fit_options_init(c.byref(options), c.c_size_t(c.sizeof(options))))
    options.keep = []
    for name, value in settings.items():
        if isinstance(value, str) and name != "class_name":
            value = {"method": METHODS, "rule": RULES, "basis": BASES}[name][value]
        if name == "weight":
            options.keep.append(np.ascontiguousarray(value, np.float64))
            value = doubles(options.keep[-1])
        elif name == "progress":
            function = value
            options.keep.append(PROGRESS(lambda _, done, total: int(bool(function(done, total)))))
            value = c.cast(options.keep[-1], c.c_void_p)
        elif name == "class_name":
            value = value.encode()
        setattr(options, name, value)
    return options


class Concepts:
    """A set of concepts; its fields are copied out as arrays."""

    def __init__(self, handle: c.c_void_p):
        self.handle = handle
        info = ConceptsDetails()
        info.struct_size = c.sizeof(info)
        check(lib.featinv_concepts_info(c.byref(info), handle))
        self.info, self.count, self.channels = info, info.count, info.channels
        self.offsets = copied(info.offsets, [info.count + 1], np.int32)
        self.bases = copied(info.bases, [info.channels, info.total], np.float64)
        self.labels = copied(info.labels, info.label_shape[:info.label_ndim], np.int32)
        self.eigenvalues = copied(info.eigenvalues, [info.eigenvalue_count], np.float64)

    def __del__(self):
        lib.featinv_concepts_release(self.handle)

    @classmethod
    def fit(cls, session, features, **settings) -> Concepts:
        """Features: maps (N, C, H, W) or rows (n, C) in float32."""
        handle, tensor, options = c.c_void_p(), view(features), fit_options(**settings)
        check(lib.featinv_concepts_fit(c.byref(handle), session.handle, ref(tensor),
                                       c.byref(options)))
        return cls(handle)

    @classmethod
    def create(cls, bases, offsets, orthonormalize=False) -> Concepts:
        """Bases (C, total) in float32 or float64."""
        handle, tensor = c.c_void_p(), view(np.ascontiguousarray(bases))
        check(lib.featinv_concepts_create(c.byref(handle), ref(tensor),
                                          (c.c_int32 * len(offsets))(*offsets),
                                          c.c_int32(len(offsets) - 1), c.c_int32(orthonormalize)))
        return cls(handle)

    @classmethod
    def open(cls, path) -> Concepts:
        handle = c.c_void_p()
        check(lib.featinv_concepts_open(c.byref(handle), str(path).encode()))
        return cls(handle)

    def save(self, path) -> None:
        check(lib.featinv_concepts_save(self.handle, str(path).encode()))

    def basis(self, index: int) -> np.ndarray:
        """Orthonormal columns (C, dimension)."""
        return self.bases[:, self.offsets[index]:self.offsets[index + 1]]

    @property
    def dimensions(self) -> np.ndarray:
        return np.diff(self.offsets)

    def coefficients(self):
        """The self-representation as a scipy.sparse.csr_array."""
        from scipy.sparse import csr_array

        offsets, indices = c.POINTER(c.c_int64)(), c.POINTER(c.c_int32)()
        values, rows = c.POINTER(c.c_double)(), c.c_int64()
        check(lib.featinv_concepts_coefficients(c.byref(offsets), c.byref(indices),
                                                c.byref(values), c.byref(rows), self.handle))
        starts = copied(offsets, [rows.value + 1], np.int64)
        entries = [int(starts[-1])]
        return csr_array((copied(values, entries, np.float64), copied(indices, entries, np.int32),
                          starts), shape=(rows.value, rows.value))

    def decompose(self, maps) -> np.ndarray:
        """Parts (K + 1, N, C, H, W) of maps (N, C, H, W), complement last."""
        parts = np.zeros((self.count + 1, *maps.shape), np.float32)
        p, m = view(parts), view(maps)
        check(lib.featinv_concepts_decompose(ref(p), self.handle, ref(m)))
        return parts

    def attenuate(self, maps, index, factor, mask=None) -> np.ndarray:
        out = np.zeros_like(maps)
        o, m, k = view(out), view(maps), view(mask)
        check(lib.featinv_concepts_attenuate(ref(o), self.handle, ref(m), c.c_int32(index),
                                             c.c_double(factor), ref(k)))
        return out

    def completeness(self, weight) -> tuple[float, float]:
        """Lengths of the unit weight's part in the span of the bases, and of the rest."""
        inside, rest = c.c_double(), c.c_double()
        weight = np.ascontiguousarray(weight, np.float64)
        check(lib.featinv_concepts_completeness(c.byref(inside), c.byref(rest), self.handle,
                                                doubles(weight)))
        return inside.value, rest.value

    def orthogonalize(self, weight) -> tuple[Concepts, np.ndarray]:
        """Concepts orthogonal to each other, and the old numbers in the order taken."""
        handle, order = c.c_void_p(), (c.c_int32 * self.count)()
        weight = np.ascontiguousarray(weight, np.float64)
        check(lib.featinv_concepts_orthogonalize(c.byref(handle), order, self.handle,
                                                 doubles(weight)))
        return Concepts(handle), np.array(order)


# ---- activation, relevance, angles --------------------------------------------------------------


ACTIVATION = {"image": 0, "position": 1, "raw": 2}
COMPLEMENT = -1


def activation(concepts, maps, normalization="image"):
    """Activation maps (K + 1, N, H, W) of maps (N, C, H, W), complement last."""
    out = np.zeros((concepts.count + 1, len(maps), *maps.shape[2:]), np.float32)
    o, m = view(out), view(maps)
    check(lib.featinv_concepts_activation(ref(o), concepts.handle, ref(m),
                                          c.c_int32(ACTIVATION[normalization])))
    return out


def similarity(a, index_a, b, index_b):
    """Grassmann distance, and the principal angles in radians, descending."""
    distance, count, angles = c.c_double(), c.c_int32(), np.full(a.channels, np.nan)
    check(lib.featinv_concepts_similarity(c.byref(distance), doubles(angles), c.c_int32(a.channels),
                                          c.byref(count), a.handle, c.c_int32(index_a), b.handle,
                                          c.c_int32(index_b)))
    return distance.value, angles[:count.value]


def class_weight(session, index, channels):
    """Weight (C) of a class in feature space."""
    out = np.zeros(channels)
    check(lib.featinv_class_weight(doubles(out), session.handle, c.c_int32(index)))
    return out


def relevance(session, concepts, index, maps=None):
    """Of a class: global (K + 1); with maps also local (N, K + 1) and map (K + 1, N, H, W)."""
    planes, local, local_map = concepts.count + 1, None, None
    out = np.zeros(planes)
    if maps is not None:
        local = np.zeros((len(maps), planes), np.float32)
        local_map = np.zeros((planes, len(maps), *maps.shape[2:]), np.float32)
    l, p, m = view(local), view(local_map), view(maps)
    check(lib.featinv_concepts_relevance(doubles(out), ref(l), ref(p), session.handle,
                                         concepts.handle, ref(m), c.c_int32(index)))
    return out, local, local_map


def classify(session, maps, classes):
    """Maps (N, C, H, W) → logits (N, classes)."""
    out = np.zeros((len(maps), classes), np.float32)
    o, m = view(out), view(maps)
    check(lib.featinv_classify(ref(o), session.handle, ref(m), None))
    return out


# ---- steering and viz ---------------------------------------------------------------------------


class VisualizeOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("pairs", c.c_int32), ("factor", c.c_double),
                ("threshold", c.c_double), ("normalization", c.c_int32), ("null_draws", c.c_int32),
                ("null_seed", c.c_uint64), ("sampling", c.POINTER(SampleOptions)),
                ("originals", c.POINTER(Tensor)), ("altered", c.POINTER(Tensor)),
                ("null_map", c.POINTER(Tensor)), ("altered_maps", c.POINTER(Tensor)),
                ("maxima", c.POINTER(c.c_double))]


NORMALIZE = {"max": 0, "minmax": 1}
MIX = {"lerp": 0, "slerp": 1, "norm": 2}


def difference_map(originals, altered, normalize="max", threshold=0.33):
    """uint8 (P,H,W,3) pairs → map (H,W), mask (H,W) bool, maximum."""
    out = np.zeros(originals.shape[1:3], np.float32)
    mask = np.zeros(out.shape, np.uint8)
    maximum = c.c_double()
    o, m, a, b = view(out), view(mask), view(originals), view(altered)
    check(lib.featinv_difference_map(ref(o), ref(m), c.byref(maximum), ref(a), ref(b),
                                     c.c_int32(NORMALIZE[normalize]), c.c_double(threshold)))
    return out, mask.astype(bool), maximum.value


def mix_maps(a, b, weight, mode="lerp"):
    """Maps (N,C,H,W), mixed."""
    out = np.zeros_like(a)
    o, x, y = view(out), view(a), view(b)
    check(lib.featinv_features_mix(ref(o), ref(x), ref(y), c.c_double(weight),
                                   c.c_int32(MIX[mode])))
    return out


def scope(model, maps):
    """Percentiles of norm and residual of maps (N,C,H,W), N each."""
    norm, residual = (np.zeros(len(maps)) for _ in range(2))
    m = view(maps)
    check(lib.featinv_features_scope(norm.ctypes.data_as(c.POINTER(c.c_double)),
                                     residual.ctypes.data_as(c.POINTER(c.c_double)), model,
                                     ref(m)))
    return norm, residual


def overlay(image, heat, opacity=0.6, contour=float("nan")):
    """uint8 (H,W,3) with a heat map (h,w) over it."""
    out = np.zeros_like(image)
    picture = Image(image.ctypes.data, image.shape[1], image.shape[0], image.strides[0])
    h = view(f32(heat))
    check(lib.featinv_image_overlay(c.c_void_p(out.ctypes.data), c.byref(picture), ref(h),
                                    c.c_double(opacity), c.c_double(contour)))
    return out


def visualize(session, concepts, indices, maps, image, *, pairs=5, sampling=None, **settings):
    """FeatInv-Viz of concepts (a handle) on maps, as a dict of all outputs; `image` is (H,W) of the
    pictures, `sampling` holds fields of the sampling options, settings those of the call's."""
    n, k = len(maps), len(indices)
    draw, options = SampleOptions(), VisualizeOptions()
    check(lib.featinv_sample_options_init(c.byref(draw), c.c_size_t(c.sizeof(draw)),
                                          session.model))
    check(lib.featinv_visualize_options_init(c.byref(options), c.c_size_t(c.sizeof(options)),
                                             session.model))
    for name, value in (sampling or {}).items():
        setattr(draw, name, value)
    for name, value in settings.items():
        setattr(options, name, value)
    out = {"map": np.zeros((n, k, *image), np.float32), "mask": np.zeros((n, k, *image), np.uint8),
           "originals": np.zeros((n, pairs, *image, 3), np.uint8),
           "altered": np.zeros((n, k, pairs, *image, 3), np.uint8),
           "altered_maps": np.zeros((n, k, *maps.shape[1:]), np.float32),
           "maxima": np.zeros((n, k))}
    if options.null_draws:
        out["null_map"] = np.zeros((n, k, *image), np.float32)
    views = {name: view(array) for name, array in out.items()}
    for name in ("originals", "altered", "altered_maps", "null_map"):
        setattr(options, name, pointer(views.get(name)))
    options.pairs, options.sampling = pairs, c.pointer(draw)
    options.maxima = out["maxima"].ctypes.data_as(c.POINTER(c.c_double))
    m = view(maps)
    check(lib.featinv_visualize(ref(views["map"]), ref(views["mask"]), session.handle, concepts,
                                (c.c_int32 * k)(*indices), c.c_int32(k), ref(m),
                                c.byref(options)))
    return out


def run(*args, expect=0, timeout=600, command=COMMAND, **kwargs):
    """The command; checks the exit code."""
    result = subprocess.run([str(command), *map(str, args)], capture_output=True, text=True,
                            timeout=timeout, **kwargs)
    assert result.returncode == expect, (args, result.returncode, result.stdout, result.stderr)
    return result


def export(*args, out: Path, timeout=900) -> Path:
    """A bundle made by the exporter."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "bindings" / "python"))
    environment.pop("LD_PRELOAD", None)  # of a sanitizer: the exporter is not ours to check
    result = subprocess.run([sys.executable, "-m", "featinv.export", *map(str, args), "-o", out],
                            capture_output=True, text=True, timeout=timeout, env=environment)
    assert result.returncode == 0, result.stderr
    return out


def scaled(value, reference) -> float:
    """Largest absolute difference over the largest absolute reference value."""
    return float(np.abs(np.asarray(value, np.float64) - reference).max() / np.abs(reference).max())
