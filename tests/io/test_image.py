"""featinv_image_read and _write against Pillow, and what they refuse."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import core
import pictures as p

SIZES = [(1, 1), (3, 2), (13, 9), (37, 21)]


def pillow(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3): orientation applied, converted."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB"))


def ours(folder: Path, data: bytes, name: str = "picture") -> np.ndarray:
    (folder / name).write_bytes(data)
    return core.image_read(folder / name)


# ------------------------------------------------------------------ PNG


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth, kind", [k for k in p.KINDS if k != (16, 0)])
def test_png_kinds(tmp_path: Path, depth: int, kind: int, interlaced: bool) -> None:
    alpha = {0: struct.pack(">H", 1), 2: struct.pack(">HHH", 1, 2, 3), 3: b"\x00\x80"}
    for seed, size in enumerate(SIZES):
        for extra in (b"", p.chunk(b"tRNS", alpha[kind])) if kind in alpha else (b"",):
            data = p.png(*size, depth, kind, seed, interlaced, extra)
            assert np.array_equal(ours(tmp_path, data), pillow(data)), (size, bool(extra))


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_grey_16_is_the_high_byte(tmp_path: Path, interlaced: bool) -> None:
    """Pillow clips 16-bit grey at 255, so a picture turns white; the library does not."""
    samples = np.random.default_rng(3).integers(0, 65536, (21, 37, 1))
    got = ours(tmp_path, p.png(37, 21, 16, 0, interlaced=interlaced, samples=samples))
    assert np.array_equal(got, np.repeat(samples >> 8, 3, axis=2))
    small = samples >> 8  # where Pillow does not clip, it keeps the low byte
    data = p.png(37, 21, 16, 0, samples=small)
    assert np.array_equal(pillow(data), np.repeat(small, 3, axis=2))
    assert not ours(tmp_path, data).any()


def test_png_high_byte_of_grey_16_is_what_pillow_does_with_alpha(tmp_path: Path) -> None:
    samples = np.random.default_rng(4).integers(0, 65536, (21, 37, 2))
    with_alpha = p.png(37, 21, 16, 4, samples=samples)
    without = p.png(37, 21, 16, 0, samples=samples[..., :1])
    assert np.array_equal(ours(tmp_path, without), pillow(with_alpha))


def test_png_palette_index_beyond_palette(tmp_path: Path) -> None:
    rows = zlib.compress(bytes([0, 0, 1, 2, 200]))
    data = (p.header(4, 1, 8, 3) + p.chunk(b"PLTE", bytes(range(10, 16)))
            + p.chunk(b"IDAT", rows) + p.chunk(b"IEND", b""))
    assert np.array_equal(ours(tmp_path, data), pillow(data))


def test_png_gamma_and_profiles_are_ignored(tmp_path: Path) -> None:
    plain = p.png(37, 21, 8, 2)
    profile = p.chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile at all"))
    for extra in (p.chunk(b"gAMA", struct.pack(">I", 100000)), profile,
                  p.chunk(b"sRGB", b"\0"), p.chunk(b"sBIT", bytes([5, 5, 5])),
                  p.chunk(b"bKGD", bytes(6)), p.chunk(b"tEXt", b"a\0b")):
        data = p.png(37, 21, 8, 2, before=extra)
        assert np.array_equal(ours(tmp_path, data), pillow(plain)), extra[4:8]


@pytest.mark.parametrize("default_image", [False, True])
def test_apng_gives_the_first_frame(tmp_path: Path, default_image: bool) -> None:
    frames = [Image.fromarray(p.smooth(37, 21, 3, seed)) for seed in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:],
                   default_image=default_image)
    assert b"acTL" in out.getvalue()
    assert np.array_equal(ours(tmp_path, out.getvalue()), np.asarray(frames[0]))


def test_png_with_compressed_bombs_beside_the_pixels(tmp_path: Path) -> None:
    """64 MiB behind 64 kB: skipped unread, as it says nothing about pixels."""
    bomb = zlib.compress(bytes(64 << 20), 9)
    for name, head in ((b"iCCP", b"x\0\0"), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0")):
        data = p.png(37, 21, 8, 2, before=p.chunk(name, head + bomb))
        assert np.array_equal(ours(tmp_path, data), pillow(p.png(37, 21, 8, 2)))


# ------------------------------------------------------------------ orientation


@pytest.mark.parametrize("orientation", range(0, 10))
@pytest.mark.parametrize("big", [False, True])
def test_exif_orientation(tmp_path: Path, orientation: int, big: bool) -> None:
    block = p.exif(orientation, big)
    for size in ((37, 21), (1, 5), (8, 8)):
        for data in (p.jpeg(*size, "RGB", exif=b"Exif\0\0" + block),
                     p.png(*size, 8, 2, before=p.chunk(b"eXIf", block)),
                     p.png(*size, 8, 3, after=p.chunk(b"eXIf", block))):
            got, wanted = ours(tmp_path, data), pillow(data)
            assert np.array_equal(got, wanted), (size, data[:4])
            assert core.image_size(tmp_path / "picture") == wanted.shape[1::-1]


@pytest.mark.parametrize("text", [b'<x tiff:Orientation="6"/>',
                                  b"<tiff:Orientation>8</tiff:Orientation>"])
def test_xmp_orientation(tmp_path: Path, text: bytes) -> None:
    for data in (p.jpeg(37, 21, "RGB", xmp=text),
                 p.png(37, 21, 8, 2, before=p.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0"
                                                    + text))):
        assert np.array_equal(ours(tmp_path, data), pillow(data))


@pytest.mark.parametrize("block", [
    b"", b"II", b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\xff\xff", b"XX*\0\x08\0\0\0\x01\0",
    p.exif(6)[:-10], p.exif(6).replace(b"\x12\x01\x03\0", b"\x12\x01\x02\0")])
def test_damaged_exif_is_no_reason_to_refuse(tmp_path: Path, block: bytes) -> None:
    plain = p.jpeg(37, 21, "RGB")
    data = p.jpeg(37, 21, "RGB", exif=b"Exif\0\0" + block)
    assert np.array_equal(ours(tmp_path, data), pillow(plain))


# ------------------------------------------------------------------ JPEG


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES + [(333, 250)])
def test_jpeg_rgb(tmp_path: Path, size: tuple[int, int], subsampling: int,
                  progressive: bool) -> None:
    for quality in (30, 75, 95):
        data = p.jpeg(*size, "RGB", subsampling=subsampling, progressive=progressive,
                      quality=quality)
        assert np.array_equal(ours(tmp_path, data), pillow(data)), quality


@pytest.mark.parametrize("kind", p.LUMA)
@pytest.mark.parametrize("size", SIZES + [(333, 250), (64, 48)])
def test_jpeg_rare_subsampling(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    """4:1:1 and 4:4:0 (what a camera's 4:2:2 becomes when it is turned without loss)."""
    for progressive in (False, True) if size == (64, 48) else (False,):
        for quality in (30, 95):
            data = p.resampled(*size, kind, quality=quality, progressive=progressive)
            assert Image.open(io.BytesIO(data)).layer[0][1:3] == p.LUMA[kind][0]
            assert np.array_equal(ours(tmp_path, data), pillow(data)), (progressive, quality)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("size", SIZES + [(333, 250)])
def test_jpeg_modes(tmp_path: Path, size: tuple[int, int], mode: str, progressive: bool) -> None:
    """Grey, CMYK and, by its Adobe marker, YCCK."""
    data = p.jpeg(*size, mode, progressive=progressive)
    assert (b"\xff\xc2" in data) == progressive
    assert np.array_equal(ours(tmp_path, data), pillow(data))
    if mode == "CMYK":
        assert np.array_equal(ours(tmp_path, p.ycck(data)), pillow(p.ycck(data)))
        assert not np.array_equal(pillow(p.ycck(data)), pillow(data))


def test_jpeg_stored_as_rgb(tmp_path: Path) -> None:
    data = p.jpeg(37, 21, "RGB", keep_rgb=True)
    assert np.array_equal(ours(tmp_path, data), pillow(data))


def test_jpeg_with_restarts_and_a_tail(tmp_path: Path) -> None:
    data = p.jpeg(333, 250, "RGB", restart_marker_blocks=7)
    assert np.array_equal(ours(tmp_path, data + b"a second picture"), pillow(data))


def test_content_decides(tmp_path: Path) -> None:
    for data, name in ((p.png(37, 21, 8, 2), "a.jpg"), (p.jpeg(37, 21, "RGB"), "a.png"),
                       (p.png(37, 21, 8, 2), "a.npy")):
        assert np.array_equal(ours(tmp_path, data, name), pillow(data))


# ------------------------------------------------------------------ refused


def bare(width: int, height: int) -> bytes:
    """A PNG whose few bytes of pixels cannot be what its header says."""
    return (p.header(width, height, 8, 2) + p.chunk(b"IDAT", zlib.compress(bytes(100)))
            + p.chunk(b"IEND", b""))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


PNG, JPEG = p.png(37, 21, 8, 2), p.jpeg(37, 21, "RGB")
PROGRESSIVE = p.jpeg(37, 21, "RGB", progressive=True)
FRAME = JPEG.index(b"\xff\xc0")
BAD = {
    "empty": (b"", "FORMAT"),
    "text": (b"P6 1 1 255\n", "FORMAT"),
    "png signature only": (p.SIGNATURE, "FORMAT"),
    "png truncated in the header": (PNG[:20], "FORMAT"),
    "png truncated in the pixels": (PNG[:len(PNG) // 2], "FORMAT"),
    "png without its end": (PNG[:-12], "FORMAT"),
    "png 0x0": (bare(0, 0), "FORMAT"),
    "png 0 wide": (bare(0, 7), "FORMAT"),
    "png huge": (bare(2**31 - 1, 2**31 - 1), "FORMAT"),
    "png over 2^31": (bare(2**32 - 1, 1), "FORMAT"),
    "png declares 8000x8000 in 100 bytes": (bare(8000, 8000), "FORMAT"),
    "png with too few rows": (bare(40, 40), "FORMAT"),
    "png bomb": (p.header(9000, 9000, 1, 0)
                 + p.chunk(b"IDAT", zlib.compress(bytes(9000 * 1126), 9))
                 + p.chunk(b"IEND", b""), "LIMIT"),
    "png bit depth 3": (p.header(4, 4, 3, 0) + PNG[33:], "FORMAT"),
    "png colour type 5": (p.header(4, 4, 8, 5) + PNG[33:], "FORMAT"),
    "png without palette": (p.header(37, 21, 8, 3) + PNG[33:], "FORMAT"),
    "png CRC of the header": (flipped(PNG, 32), "FORMAT"),
    "png CRC of the pixels": (flipped(PNG, len(PNG) - 14), "FORMAT"),
    "png CRC of a text": (flipped(p.png(37, 21, 8, 2, before=p.chunk(b"tEXt", b"a\0b")), 43),
                          "FORMAT"),
    "jpeg marker only": (b"\xff\xd8\xff", "FORMAT"),
    "jpeg truncated in the header": (JPEG[:100], "FORMAT"),
    "jpeg truncated in the pixels": (JPEG[:-200], "FORMAT"),
    "jpeg without its end": (JPEG[:-2], "FORMAT"),
    "jpeg progressive truncated": (PROGRESSIVE[:-100], "FORMAT"),
    "jpeg ends early": (JPEG[:-200] + b"\xff\xd9", "FORMAT"),
    "jpeg 0x0": (JPEG[:FRAME + 5] + bytes(4) + JPEG[FRAME + 9:], "FORMAT"),
    "jpeg huge": (JPEG[:FRAME + 5] + b"\xff\xdc\xff\xdc" + JPEG[FRAME + 9:], "LIMIT"),
    "jpeg taller than its data": (JPEG[:FRAME + 5] + b"\x03\x00" + JPEG[FRAME + 7:], "FORMAT"),
    "jpeg 12 bit": (JPEG[:FRAME + 4] + b"\x0c" + JPEG[FRAME + 5:], "FORMAT"),
    "jpeg lossless": (JPEG[:FRAME + 1] + b"\xc3" + JPEG[FRAME + 2:], "FORMAT"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(tmp_path: Path, name: str) -> None:
    data, status = BAD[name]
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(core.Refused) as refused:
        core.image_read(tmp_path / "bad.png")
    assert refused.value.status == status, refused.value
    assert str(tmp_path / "bad.png") in refused.value.text


def test_jpeg_with_endless_scans(tmp_path: Path) -> None:
    """A progressive file whose last scan comes a thousand times."""
    at = PROGRESSIVE.rindex(b"\xff\xda")
    end = PROGRESSIVE.rindex(b"\xff\xd9")
    (tmp_path / "bad.jpg").write_bytes(PROGRESSIVE[:end] + PROGRESSIVE[at:end] * 1000
                                       + b"\xff\xd9")
    with pytest.raises(core.Refused, match="scans"):
        core.image_read(tmp_path / "bad.jpg")


def test_refused_places(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, status in ((tmp_path / "none", "NOT_FOUND"), (tmp_path, "READ"),
                         (tmp_path / "fifo", "READ"), ("/dev/zero", "READ")):
        with pytest.raises(core.Refused) as refused:
            core.image_read(path)
        assert refused.value.status == status and str(path) in refused.value.text


def test_pixel_limit(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    assert core.image_size(tmp_path / "a.png", 37 * 21) == (37, 21)
    with pytest.raises(core.Refused) as refused:
        core.image_size(tmp_path / "a.png", 37 * 21 - 1)
    assert refused.value.status == "LIMIT" and "37 x 21" in refused.value.text


# ------------------------------------------------------------------ writing


def test_png_written_is_read_by_pillow(tmp_path: Path) -> None:
    for size in SIZES + [(700, 3)]:
        pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
        core.image_write(tmp_path / "a.PNG", pixels)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a.PNG")), pixels)
        assert np.array_equal(core.image_read(tmp_path / "a.PNG"), pixels)
    part = pixels[:, 5:600]
    core.image_write(tmp_path / "b.png", part)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), part)
    assert sorted(os.listdir(tmp_path)) == ["a.PNG", "b.png"]


def test_jpeg_written_is_read_by_pillow(tmp_path: Path) -> None:
    pixels = p.smooth(333, 250, 3)
    core.image_write(tmp_path / "a.jpeg", pixels)
    image = Image.open(tmp_path / "a.jpeg")
    reference = io.BytesIO()
    Image.fromarray(pixels).save(reference, "JPEG", quality=95, subsampling=0)
    reference = Image.open(reference)
    assert image.quantization == reference.quantization and image.layer == reference.layer
    assert np.array_equal(np.asarray(image), np.asarray(reference))


@pytest.mark.parametrize("name, status", [
    ("a.gif", "ARGUMENT"), (".png", "ARGUMENT"), ("png", "ARGUMENT"), ("none/a.png", "WRITE"),
    ("folder.png", "WRITE"), ("none/a.jpg", "WRITE")])
def test_writing_refused(tmp_path: Path, name: str, status: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(core.Refused) as refused:
        core.image_write(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert refused.value.status == status and name in refused.value.text
    assert os.listdir(tmp_path) == ["folder.png"]
