"""Several processes over the fake backend: who writes, who stops, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from conftest import (COMMAND, FAKE, MPIRUN, checkpoint, command, environment, log, state_of,
                      steps)

SLOW = {"FEATINV_BACKEND": str(FAKE), "FAKE_DELAY": "0.05"}
FAST = {"FEATINV_BACKEND": str(FAKE)}


def train(bundle, data, out, *more):
    return ["train", "--data", data, "-m", bundle, "-o", out, "--batch", 4, "--lr", 1e-2,
            "--workers", 1, "--checkpoint-every", 5, "--validate-every", 0, "-q", *more]


def processes(launcher: subprocess.Popen) -> dict[int, int]:
    """Numbers of the processes that mpirun has started, by rank."""
    found = {}
    for child in open(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read().split():
        variables = open(f"/proc/{child}/environ", "rb").read().split(b"\0")
        for variable in variables:
            if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                found[int(variable.split(b"=")[1])] = int(child)
    return found


def is_running(process: int) -> bool:
    """Or a zombie, which waits for a parent that may never ask."""
    try:
        return open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start(count, args, env, out, step):
    """The training, once its log has reached a step; and its processes."""
    launcher = subprocess.Popen(command(count, *args), env=environment(**env), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while launcher.poll() is None and time.monotonic() < deadline:
        path = state_of(out) / "log.jsonl"
        if path.exists() and path.read_text().count('"loss"') >= step:
            return launcher, processes(launcher)
        time.sleep(0.01)
    launcher.kill()
    raise AssertionError(launcher.communicate())


# ------------------------------------------------------------------ steps

@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("more", [[], ["--cache", "--no-augment"]], ids=["files", "cache"])
def test_the_same_training_as_by_one_process(run, fake, noise, tmp_path, count, more):
    """Rounding aside: samples, draws, dropouts and their order are those of one process, and with
    them the log, validations included."""
    out, alone = tmp_path / "out", tmp_path / "alone"
    more = [*more, "--validate-every", 5, "--steps", 12]
    run(1, *train(fake, noise, alone, *more), env=FAST)
    run(count, *train(fake, noise, out, *more), env=FAST)
    ours, theirs = log(out), log(alone)
    assert len(ours) == len(theirs) and any("right_loss" in x for x in ours)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-5), (key, a, b)
    names = [sorted(p.name for p in state_of(x).iterdir()) for x in (out, alone)]
    assert names[0] == names[1]


def test_an_image_that_cannot_be_read(run, fake, noise, tmp_path):
    """Whichever process meets it, the exit code says so, and another image stands in for it as in
    one process."""
    noise = shutil.copytree(noise, tmp_path / "noise")
    (noise / "05.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    out, alone = tmp_path / "out", tmp_path / "alone"
    run(1, *train(fake, noise, alone, "--steps", 8), env=FAST, expect=3)
    result = run(2, *train(fake, noise, out, "--steps", 8), env=FAST, expect=3)
    assert any("05.png" in x and "left out" in x for x in result.lines)
    assert [x["loss"] for x in steps(out)] == pytest.approx([x["loss"] for x in steps(alone)],
                                                            rel=1e-5)


def test_one_that_fails_stops_all(fake, noise, tmp_path):
    """The backend of process 1 fails: one line, printed once, that names it."""
    out = tmp_path / "out"
    args = [str(COMMAND), *map(str, train(fake, noise, out, "--steps", 8))]
    result = subprocess.run([*MPIRUN, "-n", "1", *args, ":", "-n", "1", "env",
                             "FAKE_FAIL=trainer_forward", *args], capture_output=True, text=True,
                            env=environment(**FAST), timeout=60)
    assert result.returncode == 1, result
    assert [x for x in result.stderr.splitlines() if x.startswith("featinv: ")] == [
        "featinv: rank 1: training: trainer_forward failed on request; there is no checkpoint yet"]
    assert not out.exists() and not state_of(out).exists()


# ------------------------------------------------------------------ stopped and killed

@pytest.fixture(scope="module")
def whole(run, fake, noise, tmp_path_factory):
    """Twenty steps of two processes, left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(2, *train(fake, noise, out, "--steps", 20), env=FAST)
    return out


def test_killed_and_resumed(run, fake, noise, whole, tmp_path):
    """kill -9 of either process ends the other, mpirun says which, and the training goes on from
    its checkpoint to the same bytes."""
    killed = tmp_path / "killed"
    for rank, step in ((1, 7), (0, 12)):
        args = train(fake, noise, killed, "--steps", 20, "--resume")
        launcher, found = start(2, args, SLOW, killed, step)
        os.kill(found[rank], signal.SIGKILL)
        _, text = launcher.communicate(timeout=30)
        assert launcher.returncode == 137 and f"rank {rank}" in text and "signal 9" in text, text
        deadline = time.monotonic() + 10  # mpirun does not wait for those that it kills
        while any(map(is_running, found.values())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_running, found.values()))
        assert not killed.exists()
    run(2, *train(fake, noise, killed, "--steps", 20, "--resume"), env=FAST)
    assert checkpoint(whole) == checkpoint(killed) and log(whole) == log(killed)


@pytest.mark.parametrize("rank", [0, 1])
def test_asked_to_stop(run, fake, noise, whole, tmp_path, rank):
    """SIGTERM to either process: all finish the step, and none of the work is lost."""
    stopped = tmp_path / "stopped"
    launcher, found = start(2, train(fake, noise, stopped, "--steps", 20), SLOW, stopped, 7)
    os.kill(found[rank], signal.SIGTERM)
    _, text = launcher.communicate(timeout=30)
    lines = [x for x in text.splitlines() if x.startswith("featinv: ")]
    assert launcher.returncode == 130 and len(lines) == 1, text
    done = len(steps(stopped))
    assert f"interrupted after step {done} of 20" in lines[0] and 7 <= done < 20
    run(2, *train(fake, noise, stopped, "--steps", 20, "--resume"), env=FAST)
    assert checkpoint(whole) == checkpoint(stopped) and log(whole) == log(stopped)


def test_mpirun_interrupted(fake, noise, tmp_path):
    """Ctrl-C at mpirun reaches its processes as SIGTERM, with a second to end in."""
    out = tmp_path / "out"
    launcher, _ = start(2, train(fake, noise, out, "--steps", 200), SLOW, out, 7)
    launcher.send_signal(signal.SIGINT)
    _, text = launcher.communicate(timeout=30)
    assert f"featinv: interrupted after step {len(steps(out))} of 200; --resume goes on" in text
    assert checkpoint(out)


# ------------------------------------------------------------------ refused

def test_a_batch_that_does_not_divide(run, fake, noise, tmp_path):
    for more, text in ((["--batch", 5], "--batch 5: cannot be divided by 2 processes and "
                                        "--accumulation 1"),
                       (["--batch", 6, "--accumulation", 2],
                        "--batch 6: cannot be divided by 2 processes and --accumulation 2")):
        result = run(2, *train(fake, noise, tmp_path / "out", *more), env=FAST, expect=2)
        assert result.lines == [f"featinv: {text}"]
        assert not state_of(tmp_path / "out").exists()


def test_other_images_on_another_machine(fake, noise, tmp_path):
    """Process 1 finds a file less under the same name: told before any step."""
    out, folders, parts = tmp_path / "out", (tmp_path / "a", tmp_path / "b"), []
    for folder in folders:
        shutil.copytree(noise, folder / "here")
    (folders[1] / "here" / "15.png").unlink()
    for folder in folders:
        args = [str(x) for x in train(fake, "here", out, "--steps", 2)]
        parts += [":", "-n", "1", "-wdir", str(folder), str(COMMAND), *args]
    result = subprocess.run([*MPIRUN, *parts[1:]], capture_output=True, text=True,
                            env=environment(**FAST), timeout=60)
    assert result.returncode == 3, result
    assert [x for x in result.stderr.splitlines() if x.startswith("featinv: ")] == [
        "featinv: here: the images found are not the same for all processes"]


def test_what_one_process_alone_refuses(fake, noise, tmp_path):
    """Errors of usage are printed by process 0, which has none here."""
    folders = tmp_path / "a", tmp_path / "b"
    shutil.copytree(noise, folders[0] / "here")
    (folders[1] / "here").mkdir(parents=True)
    shutil.copy(noise / "00.png", folders[1] / "here")
    parts = []
    for folder in folders:
        args = ["train", "--data", "here", "-m", fake, "-o", tmp_path / "out", "--batch", 4]
        parts += [":", "-n", "1", "-wdir", str(folder), str(COMMAND), *map(str, args)]
    result = subprocess.run([*MPIRUN, *parts[1:]], capture_output=True, text=True,
                            env=environment(**FAST), timeout=60)
    assert result.returncode == 2, result
    assert [x for x in result.stderr.splitlines() if x.startswith("featinv: ")] == [
        "featinv: another process cannot take these options: does it find the same images?"]


@pytest.mark.parametrize("plugin, text", [
    ("/nowhere/libfeatinv-mpi.so", "the MPI plug-in /nowhere/libfeatinv-mpi.so cannot be read (No "
                                   "such file or directory); it is built where mpicc is found"),
    (str(FAKE), f"{FAKE}: not an MPI plug-in: it lacks fi_ranks_table"),
    (__file__, "the MPI plug-in does not load: ")])
def test_no_plugin(run, fake, noise, tmp_path, plugin, text):
    result = run(2, *train(fake, noise, tmp_path / "out"), expect=6,
                 env=dict(FAST, FEATINV_MPI=plugin))
    assert any(x.startswith(f"featinv: {text}") for x in result.lines), result.lines


def test_a_launcher_of_another_mpi(run, fake, noise, tmp_path):
    """Each process would be alone, and all of them would write one state folder."""
    result = run(1, *train(fake, noise, tmp_path / "out"), expect=6,
                 env=dict(FAST, SLURM_NTASKS="2", PMIX_RANK="0"))
    assert result.lines == ["featinv: the launcher started 2 processes, and MPI joins 1: is it the "
                            "launcher of this MPI?"]
    assert not state_of(tmp_path / "out").exists()


# ------------------------------------------------------------------ jobs

def test_reconstruct_by_parts(run, fake, noise, tmp_path):
    """Processes are shards: the folder holds what one process makes of it."""
    run(1, "reconstruct", noise, "-m", fake, "-o", tmp_path / "one", "--batch", 2, "-q", env=FAST)
    run(3, "reconstruct", noise, "-m", fake, "-o", tmp_path / "three", "--batch", 2, "-q", env=FAST)
    pictures = [{p.name: p.read_bytes() for p in sorted((tmp_path / name).glob("*.png"))}
                for name in ("one", "three")]
    assert pictures[0] == pictures[1] and len(pictures[0]) >= 16
    items = [json.loads((tmp_path / name / "results.json").read_text())["items"]
             for name in ("one", "three")]
    for item in items[0] + items[1]:
        for key in ("seconds", "seconds_per_sample"):
            item.pop(key, None)
    assert items[0] == items[1] and len(items[0]) == 16


def test_a_bad_image_ends_no_other_part(fake, noise, tmp_path):
    """Its process ends first, with exit code 3; the option that docs/cluster.md gives to mpirun
    lets the other go on, and hides the exit code."""
    noise = shutil.copytree(noise, tmp_path / "noise")
    for path in sorted(noise.glob("*.png"))[1::2]:
        path.write_bytes(b"")
    args = ["reconstruct", noise, "-m", fake, "-o", tmp_path / "out", "--batch", 1, "-q"]
    result = subprocess.run(
        [*MPIRUN, "--mca", "orte_abort_on_non_zero_status", "0", "-n", "2", str(COMMAND),
         *map(str, args)], env=environment(**SLOW), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "05.png: is empty" in result.stderr, result
    items = json.loads((tmp_path / "out" / "results.json").read_text())["items"]
    assert ["error" in item for item in items] == [False, True] * 8


def test_a_task_of_srun(run, fake, noise, tmp_path):
    """Known by its environment, which is imitated here; a batch script has no PMIX_RANK."""
    task = dict(FAST, SLURM_NTASKS="2", PMIX_RANK="1")
    for env, journals in ((task, ["journal-1-of-2.jsonl"]), (dict(FAST, SLURM_NTASKS="2"), [])):
        out = tmp_path / f"out{len(journals)}"
        run(1, "reconstruct", noise, "-m", fake, "-o", out, "--batch", 2, "-q", env=env)
        assert [p.name for p in out.glob("journal*")] == journals
        items = json.loads((out / "results.json").read_text())["items"]
        assert len(items) == (8 if journals else 16)


def test_extract_by_parts(run, fake, noise, tmp_path):
    run(1, "extract", noise, "-m", fake, "-o", tmp_path / "maps.npy", "--batch", 2, "-q", env=FAST)
    run(2, "extract", noise, "-m", fake, "-o", tmp_path / "maps.npy", "--batch", 2, "-q", env=FAST)
    whole = np.load(tmp_path / "maps.npy").reshape(8, 2, -1)
    for i in range(2):
        part = np.load(tmp_path / f"maps-{i}-of-2.npy")
        assert np.array_equal(part.reshape(4, 2, -1), whole[i::2])


@pytest.mark.parametrize("more, text", [
    (["--shard", "0/2"], "--shard: the 2 processes that were started together are parts by "
                         "themselves"),
    (["--latents-out", "a.npy"], "--latents-out a.npy: is one file, and 2 processes would write "
                                 "it")])
def test_parts_twice(run, fake, noise, tmp_path, more, text):
    result = run(2, "reconstruct", noise, "-m", fake, "-o", tmp_path / "out", *more, env=FAST,
                 expect=2)
    assert result.lines == [f"featinv: {text}"] and not (tmp_path / "out").exists()
