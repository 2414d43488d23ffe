"""What each of two processes does in test_ranks.py: python ranks_worker.py CASE BUNDLE."""

import ctypes as c
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import training  # noqa: E402
from capi import FeatinvError, Session, check, lib  # noqa: E402


class Options(training.TrainerOptions):
    _fields_ = [("ranks", c.c_void_p)]


training.TrainerOptions = Options
lib.featinv_ranks_leave.argtypes = [c.c_void_p]


def join():
    ranks, rank, size = c.c_void_p(), c.c_int32(), c.c_int32()
    check(lib.featinv_ranks_join(c.byref(ranks)))
    check(lib.featinv_ranks_info(c.byref(rank), c.byref(size), ranks))
    return ranks, rank.value, size.value


def batch(rank, count, size):
    """Samples of a batch of `count`; rank 0 takes one of them, rank 1 the rest."""
    rng = np.random.default_rng(7)
    all_of_it = {"latents": rng.normal(size=(count, 4, 6, 5)).astype(np.float32),
                 "maps": rng.normal(size=(count, 3, 2, 2)).astype(np.float32)}
    first, last = (0, count) if size == 1 else ((0, 1) if rank == 0 else (1, count))
    return last - first, {"position": first, **{k: v[first:last] for k, v in all_of_it.items()}}


def steps(trainer, rank, size):
    """Results of three steps with a batch of four: one sample here, three there."""
    found = []
    for _ in range(3):
        count, inputs = batch(rank, 4, size)
        result, _ = trainer.step(count, **inputs)
        found.append((result.step, result.loss, result.gradient_norm))
    return found


def main():
    case, bundle = sys.argv[1:]
    session = Session(bundle, threads=1)
    if case == "alone":
        try:
            join()
        except FeatinvError as error:
            print(error.text)
        with training.Trainer(session, rate=0.01) as trainer:
            print(steps(trainer, 0, 1))
            for call in (lib.featinv_trainer_share, lib.featinv_trainer_compare):
                try:
                    check(call(trainer.handle))
                except FeatinvError as error:
                    assert error.text == "this trainer has no ranks in its options"
                else:
                    raise AssertionError("shared alone")
        return
    ranks, rank, size = join()
    value = c.c_int64(-5 + 10 * rank)
    check(lib.featinv_ranks_largest(c.byref(value), ranks))
    assert value.value == 5, value
    try:
        join()
    except FeatinvError as error:
        assert error.text == "MPI does not start: this process has joined already", error.text
    else:
        raise AssertionError("joined twice")
    text = ""
    with training.Trainer(session, rate=0.01, ranks=ranks.value) as trainer:
        if case == "steps":
            text = str(steps(trainer, rank, size))
            check(lib.featinv_trainer_compare(trainer.handle))
        elif case == "bad":  # rank 1 alone: the others hear of it, and both can go on
            count, inputs = batch(rank, 4, size)
            if rank == 1:
                inputs["maps"] = np.full_like(inputs["maps"], np.nan)
            try:
                trainer.step(count, **inputs)
            except FeatinvError as error:
                text = f"{error.status} {error.text}"
            assert trainer.steps == 0
            steps(trainer, rank, size)
            check(lib.featinv_trainer_compare(trainer.handle))
        elif case == "differ":
            with training.Trainer(session, rate=0.01 + rank) as other:
                count, inputs = batch(0, 4, 1)
                other.step(count, **inputs)
                path = Path(sys.argv[2]).with_name(f"state-{rank}")
                other.save(path)
            # the rate is part of what a state must agree in, so that it takes another trainer
            with training.Trainer(session, rate=0.01 + rank, ranks=ranks.value) as parted:
                parted.resume(path)
                try:
                    check(lib.featinv_trainer_compare(parted.handle))
                except FeatinvError as error:
                    text = f"{error.status} {error.text}"
                before = parted.all()
                check(lib.featinv_trainer_share(parted.handle))
                check(lib.featinv_trainer_compare(parted.handle))
                same = all(np.array_equal(v, before[k]) for k, v in parted.all().items())
                assert same == (rank == 0) and parted.steps == 1
    session.close()
    lib.featinv_ranks_leave(ranks)
    os.write(1, f"{rank} of {size}: {text}\n".encode())  # whole lines pass mpirun whole


main()
