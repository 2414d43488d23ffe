"""The calls, from Python under mpirun (ranks_worker.py)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import FAKE, MPIRUN, environment

WORKER = Path(__file__).with_name("ranks_worker.py")


def work(case, bundle, count=2):
    start = [*MPIRUN, "-n", str(count)] if count > 1 else []
    result = subprocess.run([*start, sys.executable, str(WORKER), case, str(bundle)], text=True,
                            capture_output=True, env=environment(FEATINV_BACKEND=str(FAKE)),
                            timeout=60)
    assert result.returncode == 0, (result.stdout, result.stderr)
    return sorted(result.stdout.splitlines())


def test_steps_with_shares_of_any_size(fake):
    text, whole = work("alone", fake, count=1)[::-1]
    assert text == ("this process was started alone: several are started by mpirun -n N or by "
                    "srun --mpi=pmix")
    ours = work("steps", fake)
    assert [x[:6] for x in ours] == ["0 of 2", "1 of 2"]
    found = [ast.literal_eval(x[8:]) for x in ours]
    assert found[0] == found[1]
    for a, b in zip(found[0], ast.literal_eval(whole), strict=True):
        assert a == pytest.approx(b, rel=1e-6)


def test_a_failure_of_one_is_every_ones(fake):
    ours = work("bad", fake)
    assert [x[:8] for x in ours] == ["0 of 2: ", "1 of 2: "]
    assert ours[0][8:] == ours[1][8:]
    assert ours[0][8:].startswith("-16 rank 1: maps"), ours


def test_weights_that_differ(fake):
    ours = work("differ", fake)
    assert [x[8:] for x in ours] == [
        "-32 rank 1: after step 1 the weights are not those of rank 0: do the machines have "
        "different processors or libraries?"] * 2
