"""tables.md and index.html of `featinv evaluate`, from tables that hold every case."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import BUILD

PRESENT = BUILD / "tests" / "present_tables"
NASTY = 'a<b>|c & "d" *e* _f_ `g` [h](i) ünï'
SCALES = [0.5, 1.0, 1.75, 3.0, 5.0, 8.0]
WEIGHTS = [0.0, 0.25, 0.5, 0.75, 1.0]
KINDS = {"controlnet": ("ControlNet", 0.85), "class_prompt": ("class prompt only", 0.35),
         "shuffled": ("floor: shuffled pairs", 0.02),
         "same_class": ("floor: another image of the class", 0.45),
         "autoencoder": ("ceiling: autoencoder", 0.93)}
FIGURES = ["cosine_median", "cosine_median_all", "cosine_centred", "cosine_pooled", "match_top1",
           "match_top5", "reference_cosine", "reference_centred", "reference_top1"]


def figure(value: float, width: float = 0.01) -> dict:
    return {"value": value, "low": value - width, "high": value + 1.5 * width}


def draw(folder: Path, name: str, rng) -> str:
    """A small picture below the folder; its path within it."""
    path = folder / "pictures" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return f"pictures/{name}.png"


def make_row(rng, model: int, table: int, kind: str, mean: float) -> dict:
    row = {"table": table, "model": model, "kind": kind}
    for key in FIGURES:
        row[key] = figure(mean + 0.05 * rng.random())
    row["frechet"] = {"value": 40.0 * (1.001 - mean) ** 2, "low": None, "high": None}
    row["gradient"] = figure(0.9 + 0.1 * rng.random())
    row["share"] = figure(0.8 + 0.1 * rng.random()) if kind == "controlnet" else None
    if kind == "class_prompt":
        row["cosine_median_all"] = None
    return row


def make_picture(rng, folder: Path, i: int) -> dict:
    items = []
    for m in range(3):
        drawn = [("controlnet", 0.9)] + ([("autoencoder", 0.97)] if m == 0 else [])
        if i == 0 and m < 2:
            drawn += [(f"scale {s:g}", 0.8) for s in SCALES] + [("mix .25", 0.7)]
        for n, (what, cosine) in enumerate(drawn):
            items.append({"model": m, "what": what, "image": draw(folder, f"{i}-{m}-{n}", rng),
                          "cosine": cosine + 0.02 * rng.random()})
    return {"id": f"{i} <i>x</i>/{i}.png", "class": NASTY,
            "original": draw(folder, f"{i}-original", rng), "items": items}


def make_tables(folder: Path) -> dict:
    """Tables of two spatial models and a pooled one, with nulls here and there."""
    rng = np.random.default_rng(5)
    models = [{"name": name, "backbone": "resnet", "layer": "layer3", "pooled": pooled,
               "channels": 96, "height": 8, "width": 8, "steps": 20, "scale": 1.75,
               "hint_scale": 1.5, "sha256": "0123456789abcdef" * 4, "reads_classes": m == 0}
              for m, (name, pooled) in enumerate([("scenes", False), (NASTY, False),
                                                  ("scenes", True)])]
    tables = {"format": "featinv-evaluation", "version": 1, "library": "0.1.0", "models": models,
              "settings": {"data": "photos", "images": 60, "classes": 12, "per_class": 5,
                           "seed": 7, "bootstrap": 1000},
              "frechet": {"features": "judge <x>", "dimension": 64}, "rows": [],
              "pooled_pairs": [{"spatial": 0, "pooled": 2}],
              "problems": [{"input": "bad <b>.png", "error": "not a PNG or JPEG file"}]}
    for m in range(3):
        for kind, (_, mean) in KINDS.items():
            tables["rows"].append(make_row(rng, m, 3 if m == 2 else 1, kind, mean))
    tables["cross"] = [{"condition": i, "evaluate": j,
                        **{key: figure(0.9 - 0.2 * (i != j) - 0.03 * j)
                           for key in ("cosine_median", "cosine_centred", "match_top1",
                                       "match_top5")}}
                       for i in range(2) for j in range(2)]
    tables["cross"][1]["cosine_median"] = None
    bump = {s: np.exp(-(np.log(s / 1.75)) ** 2) for s in SCALES}
    tables["sweep"] = [{"model": m, "scale": s, "hint_scale": 1.0,
                        **{key: figure(0.5 + (0.4 - 0.05 * m) * bump[s], 0.02)
                           for key in ("cosine_median", "cosine_centred", "match_top1",
                                       "match_top5")},
                        "frechet": figure(3.0 + 20.0 * (1.0 - bump[s]) + m, 1.0)}
                       for m in range(2) for s in SCALES]
    tables["sweep"][3]["cosine_centred"] = None
    tables["mix"] = [{"model": m, "mode": "lerp", "weight": w,
                      "cosine_mixed": figure(0.9 - 0.4 * w * (1.0 - w)),
                      "cosine_a": figure(0.9 - 0.5 * w), "cosine_b": figure(0.4 + 0.5 * w)}
                     for m in range(2) for w in WEIGHTS]
    tables["ood"] = {"folder": "drawings", "images": 9,
                     "rows": [{"model": m, "cosine_median": figure(0.7 - 0.1 * m),
                               "cosine_centred": figure(-0.0123), "match_top1": figure(0.25),
                              "match_top5": figure(0.5),
                               "reference_cosine": None} for m in range(2)]}
    tables["pictures"] = [make_picture(rng, folder, i) for i in range(2)]
    return tables


def present(tables: dict, folder: Path, expect: int = 0) -> subprocess.CompletedProcess:
    source = folder.parent / "tables.json"
    source.write_text(json.dumps(tables))
    result = subprocess.run([PRESENT, source, folder], capture_output=True, text=True, timeout=60)
    assert result.returncode == expect, result.stderr
    assert len(result.stderr.splitlines()) == (expect != 0), result.stderr
    return result


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(tables, tables.md, index.html, folder)"""
    folder = tmp_path_factory.mktemp("evaluation") / "out"
    folder.mkdir()
    tables = make_tables(folder)
    present(tables, folder)
    return (tables, (folder / "tables.md").read_text(), (folder / "index.html").read_text(),
            folder)


# ---------------------------------------------------------------- tables.md ----------------------

def unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text).strip()


def read_markdown(text: str) -> dict[str, dict]:
    """Headings to {"columns": names, "rows": {name: cells}}; every line as wide as its head."""
    grids, heading = {}, None
    for line in text.splitlines():
        if line.startswith("## "):
            heading = unescape(line[3:])
        if not line.startswith("| "):
            continue
        cells = [unescape(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        grid = grids.setdefault(heading, {"columns": cells[1:], "rows": {}})
        assert len(cells) == len(grid["columns"]) + 1, line
        if cells[1:] != grid["columns"] and not set(cells[0]) <= set("-"):
            assert cells[0] not in grid["rows"], f"{heading}: two rows {cells[0]}"
            grid["rows"][cells[0]] = cells[1:]
    return grids


def check(cell: str, expected: dict | None, where) -> None:
    """The cell shows the figure with three digits or more."""
    if expected is None:
        assert cell == "–", (where, cell)
        return
    numbers = [float(n) for n in re.findall(r"-?\d*\.?\d+", cell)]
    values = [v for v in expected.values() if v is not None]
    assert len(numbers) == len(values), (where, cell)
    for number, value in zip(numbers, values):
        assert abs(number - value) <= max(5.1e-4, 2e-3 * abs(value)), (where, cell, value)
    assert not re.search(r"(?<!\d)0\.", cell), (where, cell)
    if len(values) == 3:
        assert re.fullmatch(r"\S+ \[\S+, \S+\]", cell), (where, cell)


def name_of(model: int) -> str:
    return ["scenes", NASTY, "scenes, pooled"][model]


COLUMNS = {"cosine (median per image, mean)": "cosine_median",
           "cosine (median of all positions)": "cosine_median_all",
           "centred cosine": "cosine_centred", "share of floor → ceiling": "share",
           "pooled cosine": "cosine_pooled", "top-5": "match_top5",
           "top-1": "match_top1", "feature-FID (judge <x>)": "frechet",
           "reference: cosine": "reference_cosine", "reference: centred": "reference_centred",
           "reference: top-1": "reference_top1", "gradient": "gradient",
           "with the mixed map": "cosine_mixed", "with A's map": "cosine_a",
           "with B's map": "cosine_b"}


def check_grid(grid: dict, rows: dict[str, dict], columns: int) -> None:
    assert list(grid["rows"]) == list(rows)
    named = [(j, COLUMNS[c]) for j, c in enumerate(grid["columns"]) if c in COLUMNS]
    assert len(named) == columns, grid["columns"]
    for name, item in rows.items():
        for j, key in named:
            check(grid["rows"][name][j], item[key], (name, key))


def test_tables_1_and_3(shown):
    tables, text, _, _ = shown
    grids = read_markdown(text)
    for table, heading in ((1, "Table 1: drawn from spatial maps"),
                           (3, "Table 3: drawn from pooled features")):
        rows = {f"{name_of(r['model'])} · {KINDS[r['kind']][0]}": r
                for r in tables["rows"] if r["table"] == table}
        assert len(rows) == (10 if table == 1 else 5)
        check_grid(grids[heading], rows, 12)


@pytest.mark.parametrize("key, what", [("cosine_median", "cosine"),
                                       ("cosine_centred", "centred cosine"),
                                       ("match_top1", "top-1"), ("match_top5", "top-5")])
def test_table_2(shown, key, what):
    tables, text, _, _ = shown
    grid = read_markdown(text)[f"Table 2: seen by another model ({what})"]
    assert grid["columns"] == [name_of(0), name_of(1)] == list(grid["rows"])
    for item in tables["cross"]:
        cell = grid["rows"][name_of(item["condition"])][item["evaluate"]]
        check(cell, item[key], (item["condition"], item["evaluate"]))


def test_curves_as_tables(shown):
    tables, text, _, _ = shown
    grids = read_markdown(text)
    check_grid(grids["Guidance scale"],
               {f"{name_of(r['model'])} · scale {r['scale']:g}": r for r in tables["sweep"]}, 5)
    check_grid(grids["Mixed maps"],
               {f"{name_of(r['model'])} · lerp · weight {r['weight']:g}": r
                for r in tables["mix"]}, 3)
    assert grids["Guidance scale"]["columns"][0] == "hint scale"
    assert {r[0] for r in grids["Guidance scale"]["rows"].values()} == {"1"}


def test_ood_models_and_problems(shown):
    tables, text, _, _ = shown
    grids = read_markdown(text)
    # no figure of the reference network: its column is left out
    check_grid(grids["Images of another kind"],
               {name_of(r["model"]): r for r in tables["ood"]["rows"]}, 4)
    models = grids["Models"]
    assert list(models["rows"]) == [name_of(m) for m in range(3)]
    assert models["rows"][NASTY] == ["resnet", "layer3", "96×8×8", "spatial", "20", "1.75", "1.5",
                                     "no", "0123456789ab"]
    assert r"- bad \<b\>.png: not a PNG or JPEG file" in text


def test_without_reference_network(tmp_path):
    """Own features are named so, an Inception network's are called FID."""
    for features, name in (("own", "feature-FID (own backbone)"),
                           ("inception_v3", "FID (inception_v3)")):
        folder = tmp_path / features
        folder.mkdir()
        tables = make_tables(folder)
        tables["frechet"]["features"] = features
        present(tables, folder)
        grids = read_markdown((folder / "tables.md").read_text())
        assert name in grids["Table 1: drawn from spatial maps"]["columns"]


def test_equal_names_are_told_apart(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    tables = make_tables(folder)
    tables["models"][1]["name"] = "scenes"
    present(tables, folder)
    grids = read_markdown((folder / "tables.md").read_text())
    assert list(grids["Models"]["rows"]) == ["scenes (1)", "scenes (2)", "scenes, pooled"]


# ---------------------------------------------------------------- index.html ---------------------

class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_page_needs_nothing_else_and_escapes(shown):
    page = Page(shown[2])
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3",
                         "p", "div", "b", "span", "section", "ul", "li", "table", "tr", "th", "td",
                         "figure", "figcaption", "img", "i", "svg", "path", "text", "tspan", "g",
                         "dl", "dt", "dd", "footer"}
    assert {name for name, _ in page.attributes} & {"href", "onload", "onerror", "data"} == set()
    assert all(value.startswith("data:image/png;base64,")
               for name, value in page.attributes if name == "src")
    assert not re.search(r"https?:|url\(|@import", shown[2])
    assert NASTY in page.text and "1 <i>x</i>/1.png" in page.text
    assert "bad <b>.png: not a PNG or JPEG file" in page.text


def figures_of(page: str) -> list[tuple[bytes, str]]:
    """(bytes of the picture, text) of each figure."""
    found = []
    for block in re.findall(r"<figure>.*?</figure>", page, re.S):
        data = re.search(r"base64,([^\"]+)", block)
        assert data, f"a picture is missing: {block}"
        found.append((base64.b64decode(data[1]), Page(block).text))
    return found


def test_page_holds_each_picture_with_its_cosine(shown):
    tables, _, text, folder = shown
    figures = figures_of(text)
    for picture in tables["pictures"]:
        original = (folder / picture["original"]).read_bytes()
        assert any(data == original and "original" in words for data, words in figures)
        for item in picture["items"]:
            data = (folder / item["image"]).read_bytes()
            cosine = f"cosine {item['cosine']:.3f}".replace("0.", ".")
            texts = [words for other, words in figures if other == data]
            assert texts, item
            assert all(cosine in words and name_of(item["model"]) in words for words in texts)


def test_page_has_the_tables(shown):
    """Each cell of tables.md is a cell of the page."""
    cells = [Page(cell).text.replace("\u00a0", " ")
             for cell in re.findall(r"<t[dh][^>]*>.*?</t[dh]>", shown[2], re.S)]
    for heading, grid in read_markdown(shown[1]).items():
        for name, row in grid["rows"].items():
            at = [i for i, cell in enumerate(cells) if cell == name]
            assert any(cells[i + 1:i + 1 + len(row)] == row for i in at), (heading, name)


def plots(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg)
            for svg in re.findall(r'<svg class="plot".*?</svg>', page, re.S)]


def scale_of(plot: ElementTree.Element, anchor: str) -> np.poly1d:
    """Pixel → value, from the labels of the ticks of an axis."""
    labels = [t for t in plot.iter("text")
              if t.get("text-anchor") == anchor and re.fullmatch(r"-?[\d.]+", t.text or "")]
    assert len(labels) >= 2
    pixels = [float(t.get("y")) - 4 if anchor == "end" else float(t.get("x")) for t in labels]
    return np.poly1d(np.polyfit(pixels, [float(t.text) for t in labels], 1))


def lines_of(plot: ElementTree.Element) -> list[np.ndarray]:
    """(n, 2) values of each line, in the units of the axes."""
    to_x, to_y = scale_of(plot, "middle"), scale_of(plot, "end")
    lines = []
    for path in plot.iter("path"):
        if path.get("stroke-width") == "2":
            points = np.array(re.findall(r"-?[\d.]+", path.get("d")), float).reshape(-1, 2)
            lines.append(np.stack([to_x(points[:, 0]), to_y(points[:, 1])], 1))
    return lines


def titled(page: str, title: str) -> ElementTree.Element:
    found = [p for p in plots(page) if p.get("aria-label") == title]
    assert len(found) == 1, title
    return found[0]


@pytest.mark.parametrize("title, key", [
    ("Agreement of the features", "cosine_centred"),
    ("Same best class as the original", "match_top1"),
    ("Distance of the two sets of pictures", "frechet")])
def test_sweep_curves(shown, title, key):
    """The curves lie where their axes say, and a missing point is left out."""
    tables, _, text, _ = shown
    lines = lines_of(titled(text, title))
    assert len(lines) == 2
    for m, line in enumerate(lines):
        expected = np.array([[r["scale"], r[key]["value"]] for r in tables["sweep"]
                             if r["model"] == m and r[key]])
        np.testing.assert_allclose(line, expected, atol=0.01 * np.ptp(expected, 0).max())


def test_mix_curves(shown):
    tables, _, text, _ = shown
    for m in range(2):
        lines = lines_of(titled(text, name_of(m)))
        for line, key in zip(lines, ("cosine_mixed", "cosine_a", "cosine_b"), strict=True):
            expected = [[r["weight"], r[key]["value"]] for r in tables["mix"] if r["model"] == m]
            np.testing.assert_allclose(line, expected, atol=0.01)


def test_share_bars(shown):
    tables, _, text, _ = shown
    plot = titled(text, "Share of the span from floor to ceiling")
    bars = [list(map(float, re.findall(r"-?[\d.]+", p.get("d")))) for p in plot.iter("path")
            if (p.get("fill") or "").startswith("var(--p")]
    shares = [r["share"] for r in tables["rows"] if r["share"]]
    marks = [float(re.match(r"M([\d.]+)", p.get("d"))[1]) for p in plot.iter("path")
             if p.get("stroke-dasharray")]
    assert len(bars) == len(shares) == 3 and len(marks) == 2
    for bar, share in zip(bars, shares):
        assert abs((bar[2] - marks[0]) / (marks[1] - marks[0]) - share["value"]) < 0.002


# ---------------------------------------------------------------- both ---------------------------

def test_nothing_measured(tmp_path):
    """Tables without any content make files without any table."""
    folder = tmp_path / "out"
    folder.mkdir()
    present({"settings": {}, "models": []}, folder)
    assert "\n| " not in (folder / "tables.md").read_text()
    assert "<table" not in (folder / "index.html").read_text()


def test_missing_picture_is_said(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    tables = make_tables(folder)
    (folder / tables["pictures"][0]["original"]).unlink()
    present(tables, folder)
    assert "picture missing" in (folder / "index.html").read_text()


def test_no_folder(tmp_path):
    result = present({"models": []}, tmp_path / "nowhere", expect=1)
    assert "nowhere/tables.md: cannot be written" in result.stderr


def test_twice_the_same_and_nothing_left(shown, tmp_path):
    tables, text, page, folder = shown
    before = sorted(p.name for p in folder.iterdir())
    present(tables, folder)
    assert sorted(p.name for p in folder.iterdir()) == before == ["index.html", "pictures",
                                                                  "tables.md"]
    assert (folder / "tables.md").read_text() == text
    assert (folder / "index.html").read_text() == page
