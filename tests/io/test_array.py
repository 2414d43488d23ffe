"""featinv_array_read and _write against NumPy, and what they refuse."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import core

SHAPES = [(), (1,), (5,), (0,), (3, 4), (2, 3, 4, 5), (2, 0, 3), (1, 2, 1, 3, 2, 1, 2, 1)]


def sample(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = np.random.default_rng(len(shape)).standard_normal(shape) * 50
    if np.dtype(dtype).kind == "u":
        values = np.abs(values)
    return np.array(values).astype(dtype)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


def raw_npy(text: str, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + data


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def same(got: np.ndarray, wanted: np.ndarray) -> bool:
    return got.shape == wanted.shape and bool(np.array_equal(got, wanted))


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize("dtype", core.DTYPES)
@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("order", "CF")
def test_npy(tmp_path: Path, dtype: str, endian: str, order: str) -> None:
    for shape in SHAPES:
        array = sample(shape, dtype).astype(np.dtype(dtype).newbyteorder(endian))
        array = np.asarray(array, order=order)
        for version in ((1, 0), (2, 0), (3, 0)):
            (tmp_path / "a.npy").write_bytes(npy(array, version))
            got = core.array_read(tmp_path / "a.npy")
            assert got.dtype.name == dtype and same(got, array), (shape, version)
            for wanted in ("float32", "float64"):
                got = core.array_read(tmp_path / "a.npy", dtype=wanted)
                assert same(got, array.astype(wanted)), (shape, wanted)


def test_half_precision_is_exact(tmp_path: Path) -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    np.save(tmp_path / "a.npy", every)
    got = core.array_read(tmp_path / "a.npy", dtype="float32")
    assert np.array_equal(got, every.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(got), np.signbit(every))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save) -> None:
    arrays = {"features": sample((2, 3, 4, 5), "float32"), "big": np.arange(300000.0),
              "größe": sample((), "int64"), "folder/x": np.asfortranarray(sample((3, 4), "f8"))}
    save(tmp_path / "a.npz", **arrays)
    for name, array in arrays.items():
        assert same(core.array_read(tmp_path / "a.npz", name), array)
    assert same(core.array_read(tmp_path / "a.npz"), arrays["features"])
    with pytest.raises(core.Refused, match="NOT_FOUND.*'other'"):
        core.array_read(tmp_path / "a.npz", "other")


def test_npz_with_one_array_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.arange(5))
    assert same(core.array_read(tmp_path / "one.npz"), np.arange(5))
    np.savez(tmp_path / "two.npz", x=np.arange(5), y=np.arange(4))
    with pytest.raises(core.Refused, match="features"):
        core.array_read(tmp_path / "two.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_streamed_with_data_descriptors(tmp_path: Path, method: int) -> None:
    class Pipe(io.RawIOBase):
        """A file that cannot seek: zipfile then writes sizes behind the data."""

        def __init__(self) -> None:
            self.bytes = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.bytes += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name in "xy":
            with archive.open(name + ".npy", "w", force_zip64=name == "y") as member:
                member.write(npy(np.arange(1000.0)))
    (tmp_path / "a.npz").write_bytes(bytes(pipe.bytes))
    for name in "xy":
        assert same(core.array_read(tmp_path / "a.npz", name), np.arange(1000.0))


def test_content_decides(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npy(np.arange(5)))
    assert same(core.array_read(tmp_path / "a.npz"), np.arange(5))
    (tmp_path / "b.npy").write_bytes(npz({"x.npy": npy(np.arange(5)), "readme.txt": b"hello"}))
    assert same(core.array_read(tmp_path / "b.npy"), np.arange(5))


@pytest.mark.parametrize("text", [
    "{'descr':'<f4','fortran_order':False,'shape':(2,)}",
    "{ \"shape\" : ( 2 , ) , \"fortran_order\" : False , \"descr\" : \"<f4\" , } \n",
    "{'descr': 'f4', 'fortran_order': True, 'shape': (2L,), }",
    "{'descr': '=f4', 'fortran_order': False, 'shape': (1, 2), }"])
def test_header_spellings(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.npy").write_bytes(raw_npy(text, struct.pack("<ff", 1, 2)))
    assert core.array_read(tmp_path / "a.npy").ravel().tolist() == [1, 2]


# ------------------------------------------------------------------ refused


def header_of(descr: str, shape: str = "(2,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


FLOATS = struct.pack("<ff", 1, 2)
GOOD = npy(np.arange(5.0))
BAD_NPY = {
    "empty": (b"", "FORMAT"),
    "text": (b"1 2 3\n", "FORMAT"),
    "magic only": (b"\x93NUMPY", "FORMAT"),
    "version 4": (b"\x93NUMPY\x04" + GOOD[7:], "FORMAT"),
    "object": (npy(np.array([{}, None])), "FORMAT"),
    "complex": (npy(np.zeros(2, complex)), "FORMAT"),
    "string": (npy(np.array(["a", "b"])), "FORMAT"),
    "bytes": (npy(np.array([b"a", b"b"])), "FORMAT"),
    "datetime": (npy(np.zeros(2, "M8[s]")), "FORMAT"),
    "void": (npy(np.zeros(2, "V4")), "FORMAT"),
    "structured": (npy(np.zeros(2, [("a", "f4"), ("b", "i4")])), "FORMAT"),
    "long double": (npy(np.zeros(2, np.longdouble)), "FORMAT"),
    "short data": (GOOD[:-1], "FORMAT"),
    "trailing data": (GOOD + b"\0", "FORMAT"),
    "header beyond the file": (GOOD[:20], "FORMAT"),
    "header of 64 kB and 1": (raw_npy("x" * 65537, version=2), "LIMIT"),
    "header of 4 GiB": (b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(100), "LIMIT"),
    "negative": (raw_npy(header_of("'<f4'", "(-2,)"), FLOATS), "FORMAT"),
    "two negatives": (raw_npy(header_of("'<f4'", "(-1, -2)"), FLOATS), "FORMAT"),
    "overflow": (raw_npy(header_of("'<f4'", "(4611686018427387904, 4, 2)"), FLOATS), "FORMAT"),
    "overflow behind 0": (raw_npy(header_of("'<f4'", f"(0, {1 << 62}, {1 << 62})")), "FORMAT"),
    "number of 30 digits": (raw_npy(header_of("'<f4'", f"({10**30},)"), FLOATS), "FORMAT"),
    "huge": (raw_npy(header_of("'<f4'", f"({1 << 40},)"), FLOATS), "FORMAT"),
    "9 dimensions": (raw_npy(header_of("'<f4'", "(1,1,1,1,1,1,1,1,2)"), FLOATS), "SHAPE"),
    "no tuple": (raw_npy(header_of("'<f4'", "(2)"), FLOATS), "FORMAT"),
    "list": (raw_npy(header_of("'<f4'", "[2]"), FLOATS), "FORMAT"),
    "float shape": (raw_npy(header_of("'<f4'", "(2.0,)"), FLOATS), "FORMAT"),
    "double comma": (raw_npy(header_of("'<f4'", "(1,,2)"), FLOATS), "FORMAT"),
    "order 1": (raw_npy(header_of("'<f4'", order="1"), FLOATS), "FORMAT"),
    "f3": (raw_npy(header_of("'<f3'"), FLOATS), "FORMAT"),
    "|f4": (raw_npy(header_of("'|f4'"), FLOATS), "FORMAT"),
    "unclosed": (raw_npy(header_of("'<f4'")[:-3], FLOATS), "FORMAT"),
    "unclosed string": (raw_npy("{'descr': '<f4" + " " * 60, FLOATS), "FORMAT"),
    "code": (raw_npy("__import__('os').system('true')" + " " * 30, FLOATS), "FORMAT"),
    "behind the dict": (raw_npy(header_of("'<f4'") + "x", FLOATS), "FORMAT"),
    "missing key": (raw_npy("{'descr': '<f4', 'shape': (2,), }", FLOATS), "FORMAT"),
    "double key": (raw_npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, "
                           "'shape': (2,), }", FLOATS), "FORMAT"),
    "unknown key": (raw_npy("{'descr': '<f4', 'x': 1, 'fortran_order': False, "
                            "'shape': (2,), }", FLOATS), "FORMAT"),
}


def refuse(path: Path, data: bytes, member: str | None = None) -> core.Refused:
    path.write_bytes(data)
    with pytest.raises(core.Refused) as refused:
        core.array_read(path, member)
    assert str(path) in refused.value.text
    return refused.value


@pytest.mark.parametrize("name", BAD_NPY)
def test_npy_refused(tmp_path: Path, name: str) -> None:
    data, status = BAD_NPY[name]
    assert refuse(tmp_path / "a.npy", data).status == status
    if data:
        zipped = refuse(tmp_path / "a.npz", npz({"x.npy": data}, zipfile.ZIP_DEFLATED))
        assert zipped.status == status, zipped


def patched(data: bytes, signature: bytes, offset: int, new: bytes, last: bool = False) -> bytes:
    """Overwrites a field of the first (or last) record with that signature."""
    at = (data.rindex if last else data.index)(signature) + offset
    return data[:at] + new + data[at + len(new):]


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
STORED = npz({"x.npy": GOOD, "y.npy": GOOD})
PACKED = npz({"x.npy": npy(np.arange(1000.0))}, zipfile.ZIP_DEFLATED)
LONG = struct.pack("<I", len(GOOD) + 1)
HUGE = struct.pack("<I", 0xfffffff0)
ONE = npz({"x.npy": GOOD})
BAD_NPZ = {
    "empty archive": (npz({}), "NOT_FOUND"),
    "no arrays": (npz({"readme.txt": b"hello"}), "NOT_FOUND"),
    "truncated": (STORED[:-1], "FORMAT"),
    "half": (STORED[:len(STORED) // 2], "FORMAT"),
    "trailing byte": (STORED + b"\0", "FORMAT"),
    "prefix": (LOCAL + STORED, "FORMAT"),
    "duplicate names": (STORED.replace(b"y.npy", b"x.npy"), "FORMAT"),
    "longer than it is": (patched(patched(ONE, CENTRAL, 24, LONG), CENTRAL, 20, LONG), "FORMAT"),
    "size differs": (patched(ONE, CENTRAL, 24, LONG), "FORMAT"),
    "sizes differ from header": (patched(ONE, LOCAL, 22, LONG), "FORMAT"),
    "deflated longer": (patched(patched(PACKED, CENTRAL, 24, struct.pack("<I", 8129)), LOCAL, 22,
                                struct.pack("<I", 8129)), "FORMAT"),
    "deflated shorter": (patched(patched(PACKED, CENTRAL, 24, struct.pack("<I", 8127)), LOCAL, 22,
                                 struct.pack("<I", 8127)), "FORMAT"),
    "deflated out of reach": (patched(PACKED, CENTRAL, 24, HUGE), "FORMAT"),
    "CRC in both": (patched(patched(ONE, CENTRAL, 16, b"abcd"), LOCAL, 14, b"abcd"), "FORMAT"),
    "CRC in directory": (patched(ONE, CENTRAL, 16, b"abcd"), "FORMAT"),
    "data changed": (ONE.replace(struct.pack("<d", 3), struct.pack("<d", 7)), "FORMAT"),
    "deflated data changed": (PACKED[:300] + b"\xff\xff\xff" + PACKED[303:], "FORMAT"),
    "encrypted": (patched(ONE, CENTRAL, 8, b"\1\0"), "FORMAT"),
    "encrypted header": (patched(ONE, LOCAL, 6, b"\1\0"), "FORMAT"),
    "bzip2": (npz({"x.npy": GOOD}, zipfile.ZIP_BZIP2), "FORMAT"),
    "lzma": (npz({"x.npy": GOOD}, zipfile.ZIP_LZMA), "FORMAT"),
    "other name in header": (patched(ONE, LOCAL, 30, b"z"), "FORMAT"),
    "no header there": (patched(ONE, LOCAL, 0, b"PK\3\5"), "FORMAT"),
    "overlap": (patched(STORED, CENTRAL, 42, bytes(4), last=True), "FORMAT"),
    "header beyond the file": (patched(ONE, CENTRAL, 42, HUGE), "FORMAT"),
    "more members than there are": (patched(patched(ONE, END, 8, b"\2\0"), END, 10, b"\2\0"),
                                    "FORMAT"),
    "fewer members": (patched(patched(STORED, END, 8, b"\1\0"), END, 10, b"\1\0"), "FORMAT"),
    "two disks": (patched(ONE, END, 4, b"\1\0"), "FORMAT"),
    "directory beyond the file": (patched(ONE, END, 16, HUGE), "FORMAT"),
    "directory of 4 GiB": (patched(ONE, END, 12, HUGE), "FORMAT"),
    "name with zero": (ONE.replace(b"x.npy", b"\0.npy"), "FORMAT"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_npz_refused(tmp_path: Path, name: str) -> None:
    data, status = BAD_NPZ[name]
    refused = refuse(tmp_path / "a.npz", data,
                     "x" if data.count(CENTRAL) == 2 else None)
    assert refused.status == status, refused


def big_zip64(sizes: list[int]) -> bytes:
    """Deflated zeros that declare `sizes` bytes, true to the ratio that deflate reaches."""
    out, central = b"", b""
    for i, size in enumerate(sizes):
        data, name = bytes(size // 1000 + 1), f"{i}.npy".encode()
        extra = struct.pack("<HHQQQ", 1, 24, size, len(data), len(out))
        central += (CENTRAL + struct.pack("<HHHHHHIIIHHHHHII", 45, 45, 0, 8, 0, 33, 0, 0xffffffff,
                                          0xffffffff, 5, 28, 0, 0, 0, 0, 0xffffffff)
                    + name + extra)
        out += (LOCAL + struct.pack("<HHHHHIIIHH", 45, 0, 8, 0, 33, 0, 0xffffffff, 0xffffffff, 5,
                                    20) + name + extra[:20] + data)
    return out + central + END + struct.pack("<HHHHIIH", 0, 0, len(sizes), len(sizes),
                                             len(central), len(out), 0)


def test_npz_declares_at_most_8_gib(tmp_path: Path) -> None:
    """Many members, or one: refused by the directory alone, before anything is allocated."""
    assert refuse(tmp_path / "a.npz", big_zip64([(8 << 30) + 1])).status == "LIMIT"
    assert refuse(tmp_path / "a.npz", big_zip64([1 << 30] * 8 + [1])).status == "LIMIT"
    assert refuse(tmp_path / "a.npz", big_zip64([1 << 30] * 8), "0").status == "FORMAT"


def test_npz_zip64_end_record(tmp_path: Path) -> None:
    """More members than the plain end record can count."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(65540):
            archive.writestr(f"{i}.npy", GOOD if i % 9000 == 0 else b"")
    assert b"PK\6\6" in path.read_bytes()[-200:]
    assert same(core.array_read(path, "63000"), np.arange(5.0))
    data = path.read_bytes()
    at = data.rindex(b"PK\6\6")
    for offset in (4, 16, 20, 24, 32, 40, 48):
        bad = data[:at + offset] + bytes([data[at + offset] ^ 1]) + data[at + offset + 1:]
        assert refuse(path, bad, "63000").status == "FORMAT", offset


def test_conversions_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5.0))
    for dtype in ("uint8", "int32", "float16"):
        with pytest.raises(core.Refused, match=f"SHAPE.*float64, not {dtype}"):
            core.array_read(tmp_path / "a.npy", dtype=dtype)
    with pytest.raises(core.Refused, match="NOT_FOUND.*no 'x'"):
        core.array_read(tmp_path / "a.npy", "x")


def test_small_buffer(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5.0))
    out = np.full(6, 7.0)
    info = core.Info(16 + 64)
    path = os.fsencode(tmp_path / "a.npy")
    with pytest.raises(core.Refused, match="CAPACITY.*40 bytes"):
        core.check(core._lib.featinv_array_read(out.ctypes.data, 39, info, path, None, 0))
    assert (out == 7).all()
    with pytest.raises(core.Refused, match="struct_size"):
        core.check(core._lib.featinv_array_read(out.ctypes.data, 48, core.Info(0), path, None, 0))


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize("dtype", core.DTYPES)
def test_written_npy(tmp_path: Path, dtype: str) -> None:
    for shape in SHAPES:
        array = sample(shape, dtype)
        core.array_write(tmp_path / "a.npy", [array])
        got = np.load(tmp_path / "a.npy")
        assert got.dtype == array.dtype and same(got, array)
        size = len((tmp_path / "a.npy").read_bytes())
        assert (size - array.nbytes) % 64 == 0
    assert os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("compress", [False, True])
def test_written_npz(tmp_path: Path, compress: bool) -> None:
    strided = sample((6, 7, 8), "float32")[::2, ::-1, 1:7:3].transpose(2, 0, 1)
    arrays = {"features": sample((2, 3, 4, 5), "float32"), "größe": sample((), "int64"),
              "none": sample((0, 3), "float32"), "strided": strided,
              "big": np.arange(300000.0), "fortran": np.asfortranarray(sample((3, 4), "float64"))}
    core.array_write(tmp_path / "a.npz", arrays, compress)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        assert {m.compress_type for m in archive.infolist()} == {8 if compress else 0}
    with np.load(tmp_path / "a.npz") as archive:
        assert list(archive) == list(arrays)
        for name, array in arrays.items():
            assert archive[name].dtype == array.dtype and same(archive[name], array), name
    for name, array in arrays.items():
        assert same(core.array_read(tmp_path / "a.npz", name), array), name
    core.array_write(tmp_path / "b.npz", arrays, compress)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.npz"]


def test_written_npz_of_nameless_or_no_arrays(tmp_path: Path) -> None:
    core.array_write(tmp_path / "a.npz", [np.arange(3), np.arange(4)])
    assert list(np.load(tmp_path / "a.npz")) == ["arr_0", "arr_1"]
    core.array_write(tmp_path / "b.npz", [])
    assert list(np.load(tmp_path / "b.npz")) == []


@pytest.mark.parametrize("compress", [False, True])
def test_written_npz_over_4_gib(tmp_path: Path, compress: bool) -> None:
    """ZIP64, at the offset of the second member, too. The array repeats one page."""
    if os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize < 6 << 30:
        pytest.skip("needs 6 GiB of disk")
    if not os.environ.get("FEATINV_SLOW_TESTS"):
        pytest.skip("a minute and 4 GiB of memory; FEATINV_SLOW_TESTS=1 runs it")
    page = np.arange(1 << 20, dtype=np.uint8)
    large = np.lib.stride_tricks.as_strided(page, ((4 << 10) + 1, 1 << 20), (0, 1))
    core.array_write(tmp_path / "a.npz", {"large": large, "x": np.arange(5.0)}, compress)
    assert same(core.array_read(tmp_path / "a.npz", "x"), np.arange(5.0))
    with np.load(tmp_path / "a.npz") as archive:
        assert same(archive["x"], np.arange(5.0))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive, archive.open("large.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)
        assert np.lib.format.read_array_header_1_0(member)[0] == large.shape
        assert member.read(1 << 20) == page.tobytes()
    (tmp_path / "a.npz").unlink()


@pytest.mark.parametrize("name, arrays, status", [
    ("a.txt", [np.arange(3)], "ARGUMENT"), ("a.npy", [], "ARGUMENT"),
    ("a.npy", [np.arange(3)] * 2, "ARGUMENT"), ("none/a.npy", [np.arange(3)], "WRITE"),
    ("none/a.npz", [np.arange(3)], "WRITE"), ("folder.npy", [np.arange(3)], "WRITE"),
    ("a.npz", {"": np.arange(3)}, "ARGUMENT")])
def test_writing_refused(tmp_path: Path, name: str, arrays, status: str) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(core.Refused) as refused:
        core.array_write(tmp_path / name, arrays)
    assert refused.value.status == status
    assert os.listdir(tmp_path) == ["folder.npy"]


def test_devices_are_never_replaced(tmp_path: Path) -> None:
    os.symlink("/dev/null", tmp_path / "null.npy")
    with pytest.raises(core.Refused, match="WRITE.*not a regular file"):
        core.array_write(tmp_path / "null.npy", [np.arange(3)])
    assert os.path.islink(tmp_path / "null.npy")


@pytest.mark.parametrize("name, compress", [("a.npy", 0), ("a.npz", 0), ("a.npz", 1),
                                            ("a.png", 0), ("a.jpg", 0)])
def test_disk_full_leaves_the_old_file(tmp_path: Path, name: str, compress: int) -> None:
    """A limit on file sizes stands for the full disk: the same failing write, EFBIG for ENOSPC."""
    (tmp_path / name).write_bytes(b"old")
    script = f"""
import resource, signal, sys
import numpy as np
sys.path.insert(0, {str(Path(__file__).parent)!r})
import core
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
path = {str(tmp_path / name)!r}
try:
    core.image_write(path, noise) if path.endswith('g') else \\
        core.array_write(path, [noise], {compress})
except core.Refused as refused:
    print(refused.status, refused.text)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"WRITE {tmp_path / name}: cannot be written ("), done
    assert (tmp_path / name).read_bytes() == b"old" and os.listdir(tmp_path) == [name]


def test_memory_is_bounded_by_the_file(tmp_path: Path) -> None:
    """Headers alone decide: a refused file costs no memory of the size that it declares."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(tmp_path / "a.npy", raw_npy(header_of("'<f4'", f"({1 << 31},)"), FLOATS))
    refuse(tmp_path / "a.npz", patched(patched(ONE, CENTRAL, 24, HUGE), CENTRAL, 20, HUGE))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
