#!/usr/bin/env python3
"""Milliseconds to open libfeatinv.so: median of 20 fresh processes, warm."""

import statistics
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "build" / "libfeatinv.so"
PROGRAM = ("import ctypes, time; a = time.perf_counter(); "
           f"ctypes.CDLL({str(LIBRARY)!r}); print(time.perf_counter() - a)")
times = [float(subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                              check=True).stdout) for _ in range(20)]
print(f"{1e3 * statistics.median(times):.2f} ms")
