"""The backend's table, without the core: shim_test.cpp holds the cases and their limits."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import capi  # noqa: E402

HERE = Path(__file__).resolve().parent


def test_backend_table(tmp_path):
    program, golden = tmp_path / "shim_test", capi.REFERENCE / "featinv"
    subprocess.run(["c++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror",
                    f"-I{capi.ROOT}/include", f"-I{capi.ROOT}/shim", HERE / "shim_test.cpp", "-o",
                    program, "-ldl", "-lpthread"], check=True)
    bundles = [capi.export("checkpoint", "--config", golden / f"{name}.yaml", "--weights",
                           f"rule:{salt}", "--backbone", "none", "--map", "9,9",
                           out=tmp_path / name)
               for name, salt in (("tiny", "tiny-a:"), ("wide", "tiny-w:"))]
    text = (capi.BUILD / "libfeatinv-torch.conf").read_text()
    torch = next(line.split("=", 1)[1] for line in text.splitlines()
                 if line.startswith("torch_lib="))
    done = subprocess.run([program, capi.BUILD / "libfeatinv-torch.so", Path(torch).parent, golden,
                           *bundles], capture_output=True, text=True, timeout=900)
    bad = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 0 and not bad, (bad, done.stderr[-500:])
    assert done.stdout.count("\nok") > 80  # the cases did run
