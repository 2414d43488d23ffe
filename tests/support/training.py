"""The C calls of training, over ctypes."""

from __future__ import annotations

import ctypes as c

import numpy as np
from capi import NAMES, Session, Tensor, check, doubles, f32, lib, pointer, ref, view

MODES = {"locked": 0, "unlocked": 1, "joint": 2}


class TrainerOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("mode", c.c_int32), ("seed", c.c_uint64),
                ("rate", c.c_double), ("warmup", c.c_int64), ("decay_steps", c.c_int64),
                ("decay_floor", c.c_double), ("beta1", c.c_double), ("beta2", c.c_double),
                ("epsilon", c.c_double), ("weight_decay", c.c_double), ("clip", c.c_double),
                ("average", c.c_double), ("min_snr", c.c_double), ("hint_dropout", c.c_double),
                ("prompt_dropout", c.c_double), ("joint_dropout", c.c_double),
                ("accumulation", c.c_int32), ("precision", c.c_int32), ("context", c.c_char_p),
                ("uncontext", c.c_char_p)]


class TrainerBatch(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved", c.c_int32), ("count", c.c_int64),
                ("position", c.c_int64), ("images", c.POINTER(Tensor)),
                ("views", c.POINTER(Tensor)), ("latents", c.POINTER(Tensor)),
                ("maps", c.POINTER(Tensor)), ("context_data", c.POINTER(Tensor)),
                ("timesteps", c.POINTER(Tensor)), ("noise", c.POINTER(Tensor)),
                ("drop_hint", c.POINTER(c.c_uint8)), ("drop_prompt", c.POINTER(c.c_uint8)),
                ("losses", c.POINTER(c.c_double))]


class TrainerResult(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved", c.c_int32), ("step", c.c_int64),
                ("loss", c.c_double), ("gradient_norm", c.c_double), ("rate", c.c_double)]


class ExportOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("dtype", c.c_int32), ("name", c.c_char_p),
                ("force", c.c_int32), ("latest", c.c_int32)]


lib.featinv_trainer_count.restype = c.c_int64
lib.featinv_trainer_steps.restype = c.c_int64
lib.featinv_trainer_key.restype = c.c_char_p
lib.featinv_trainer_destroy.argtypes = [c.c_void_p]


class Trainer:
    """A trainer over a session (whose handle it borrows); settings are fields of the options."""

    def __init__(self, session: Session, **settings):
        self.handle, options = c.c_void_p(), TrainerOptions()
        check(lib.featinv_trainer_options_init(c.byref(options), c.c_size_t(c.sizeof(options))))
        for name, value in settings.items():
            if name == "mode" and isinstance(value, str):
                value = MODES[value]
            setattr(options, name, value)
        check(lib.featinv_trainer_create(c.byref(self.handle), session.handle, c.byref(options)))
        self.keys = [lib.featinv_trainer_key(self.handle, c.c_int64(i)).decode()
                     for i in range(lib.featinv_trainer_count(self.handle))]

    def close(self):
        lib.featinv_trainer_destroy(self.handle)
        self.handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _run(self, call, count, *, images=None, views=None, latents=None, maps=None, context=None,
             timesteps=None, noise=None, drop_hint=None, drop_prompt=None, position=0):
        batch = TrainerBatch(struct_size=c.sizeof(TrainerBatch), count=count, position=position)
        tensors = {"images": images, "views": views,
                   "latents": None if latents is None else f32(latents),
                   "maps": None if maps is None else f32(maps),
                   "context_data": None if context is None else f32(context),
                   "timesteps": None if timesteps is None else np.asarray(timesteps, np.int64),
                   "noise": None if noise is None else f32(noise)}
        keep = {name: view(None if a is None else np.ascontiguousarray(a))
                for name, a in tensors.items()}
        for name, tensor in keep.items():
            if tensor is not None:
                setattr(batch, name, pointer(tensor))
        for name, flags in (("drop_hint", drop_hint), ("drop_prompt", drop_prompt)):
            if flags is not None:
                setattr(batch, name, (c.c_uint8 * count)(*[int(f) for f in flags]))
        losses = np.full(count, np.nan)
        batch.losses = doubles(losses)
        result = TrainerResult(struct_size=c.sizeof(TrainerResult))
        check(call(c.byref(result), self.handle, c.byref(batch)))
        return result, losses

    def step(self, count, **inputs):
        """One update: the result, and the samples' losses."""
        return self._run(lib.featinv_trainer_step, count, **inputs)

    def loss(self, count, **inputs):
        return self._run(lib.featinv_trainer_loss, count, **inputs)

    @property
    def steps(self) -> int:
        return lib.featinv_trainer_steps(self.handle)

    def shape(self, key: str) -> tuple[int, ...]:
        shape, ndim = (c.c_int64 * 8)(), c.c_int32()
        check(lib.featinv_trainer_shape(shape, c.byref(ndim), self.handle, key.encode()))
        return tuple(shape[: ndim.value])

    def read(self, what: str, key: str) -> np.ndarray:
        """`what` is parameter, average or gradient."""
        out = np.full(self.shape(key), np.nan, np.float32)
        target = view(out)
        check(getattr(lib, f"featinv_trainer_{what}")(ref(target), self.handle, key.encode()))
        return out

    def all(self, what: str = "parameter") -> dict[str, np.ndarray]:
        return {key: self.read(what, key) for key in self.keys}

    def save(self, path):
        check(lib.featinv_trainer_save(self.handle, str(path).encode()))

    def warm_start(self, bundle):
        check(lib.featinv_trainer_warm_start(self.handle, str(bundle).encode()))

    def resume(self, path):
        check(lib.featinv_trainer_resume(self.handle, str(path).encode()))

    def export(self, path, *, dtype="fp16", name=None, force=False, latest=False):
        options = ExportOptions()
        check(lib.featinv_trainer_export_options_init(c.byref(options),
                                                      c.c_size_t(c.sizeof(options))))
        options.dtype, options.force, options.latest = NAMES[dtype], int(force), int(latest)
        options.name = None if name is None else name.encode()
        check(lib.featinv_trainer_export(self.handle, str(path).encode(), c.byref(options)))
