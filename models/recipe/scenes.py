#!/usr/bin/env python3
"""Draw labelled 64x64 scenes: the images that the reference bundle is trained and measured on.

    python models/recipe/scenes.py --count N --seed S -o DIR [--masks]

Scene i of a set is drawn from its own generator, seeded with S + i, so any scene can be drawn again
by itself. Two sets overlap where their ranges S..S+N-1 do. Seeds under 1,000,000 are for training
and tuning; figures come from seeds above.

A scene is a sky with clouds and perhaps a sun, hills, a ground with a coarse texture, one main
object made of parts, and up to two small objects. Its class is "OBJECT on GROUND". Backgrounds are
evaluated at pixel centres with analytic coverage at their edges; objects are drawn with analytic
coverage on a grid twice as fine and averaged. Textures have a grain of three to six pixels and no
per-pixel noise, so that a latent of one position for 4x4 pixels can carry them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 64
OBJECTS = ("house", "tree", "car", "boat", "ball", "mushroom", "balloon", "snowman")
GROUNDS = ("grass", "sand", "rock", "snow", "water")
CLASSES = tuple(f"{thing} on {ground}" for thing in OBJECTS for ground in GROUNDS)
SKIES = ("day", "clear", "overcast", "sunset", "evening")
LIGHTS = ("left", "right")
PARTS = {
    "house": ("wall", "roof", "chimney", "door", "window"),
    "tree": ("trunk", "crown"),
    "car": ("body", "cabin", "window", "wheels"),
    "boat": ("hull", "mast", "sail", "jib"),
    "ball": ("panels", "cap"),
    "mushroom": ("stem", "cap", "spots"),
    "balloon": ("envelope", "ropes", "basket"),
    "snowman": ("body", "head", "hat", "scarf", "nose", "eyes"),
}
BACKGROUND = ("sky", "sun", "hills", "ground", "small1", "small2")
# One flat list, so that a label map of a scene fits uint8: background first, then object parts.
REGIONS = BACKGROUND + tuple(f"{o}.{p}" for o in OBJECTS for p in PARTS[o])

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.13, 0.15),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.96, 0.84, 0.20),
    "green": (0.22, 0.66, 0.26),
    "cyan": (0.20, 0.72, 0.80),
    "blue": (0.16, 0.32, 0.82),
    "purple": (0.55, 0.24, 0.74),
    "pink": (0.94, 0.46, 0.66),
    "white": (0.94, 0.93, 0.90),
    "brown": (0.50, 0.30, 0.17),
}
# The colours that each object takes: at most eight each, all of them easily told apart.
BODY = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TREES = ("green", "orange", "yellow", "red", "pink")
HOUSES = ("white", "yellow", "pink", "cyan", "orange", "green")
OWN_COLOURS = {o: BODY for o in OBJECTS} | {"tree": TREES, "house": HOUSES}

# Zenith, horizon, tint of the light.
SKY_COLOURS = {
    "day": ((0.22, 0.45, 0.85), (0.66, 0.83, 0.97), (1.00, 1.00, 1.00)),
    "clear": ((0.16, 0.58, 0.78), (0.72, 0.93, 0.94), (1.00, 1.00, 0.98)),
    "overcast": ((0.47, 0.52, 0.60), (0.76, 0.78, 0.81), (0.88, 0.90, 0.93)),
    "sunset": ((0.52, 0.30, 0.46), (0.99, 0.66, 0.42), (1.00, 0.90, 0.78)),
    "evening": ((0.12, 0.15, 0.36), (0.45, 0.42, 0.62), (0.72, 0.74, 0.88)),
}
# Near colour, far colour, strength of the texture.
GROUND_COLOURS = {
    "grass": ((0.22, 0.50, 0.14), (0.40, 0.64, 0.26), 0.20),
    "sand": ((0.84, 0.70, 0.42), (0.93, 0.83, 0.58), 0.14),
    "rock": ((0.38, 0.35, 0.34), (0.52, 0.50, 0.49), 0.30),
    "snow": ((0.86, 0.90, 0.95), (0.96, 0.97, 0.99), 0.09),
    "water": ((0.08, 0.30, 0.54), (0.27, 0.54, 0.72), 0.28),
}

Array = np.ndarray
F = np.float32


# ---------------------------------------------------------------- signed distances and coverage


def circle(u: Array, v: Array, cx: float, cy: float, r: float) -> Array:
    """Signed distance to a circle, negative inside."""
    return np.hypot(u - F(cx), v - F(cy)) - F(r)


def ellipse(u: Array, v: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """First-order signed distance to an ellipse: implicit value over the length of its gradient."""
    x, y = (u - F(cx)) / F(rx), (v - F(cy)) / F(ry)
    length = np.hypot(x, y)
    gradient = np.hypot(x / F(rx), y / F(ry)) + F(1e-6)
    return length * (length - F(1)) / gradient


def box(u: Array, v: Array, cx: float, cy: float, hx: float, hy: float, r: float = 0.0) -> Array:
    """Signed distance to a box of half widths hx, hy with corners rounded by r."""
    x, y = np.abs(u - F(cx)) - F(hx - r), np.abs(v - F(cy)) - F(hy - r)
    outside = np.hypot(np.maximum(x, F(0)), np.maximum(y, F(0)))
    return outside + np.minimum(np.maximum(x, y), F(0)) - F(r)


def polygon(u: Array, v: Array, *points: tuple[float, float]) -> Array:
    """Signed distance to a convex polygon (largest of its half planes), corners in either turn."""
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1]))
    turn = 1.0 if area > 0 else -1.0
    out = None
    for a, b in zip(points, points[1:] + points[:1]):
        dx, dy = b[0] - a[0], b[1] - a[1]
        norm = turn / max(np.hypot(dx, dy), 1e-9)
        plane = (u - F(a[0])) * F(dy * norm) - (v - F(a[1])) * F(dx * norm)
        out = plane if out is None else np.maximum(out, plane)
    return out


def mix(a: Array, b: Array, w: Array | float) -> Array:
    """Linear interpolation, w = 0 gives a."""
    return a + (b - a) * w


def smooth_noise(rng: np.random.Generator, x: Array, y: Array, cells: int = 24) -> Array:
    """Value noise in about [-1, 1] at (x, y) in cells, smoothly interpolated, periodic.

    The grid of values is drawn once per call; x and y broadcast to the returned shape.
    """
    grid = rng.uniform(-1.0, 1.0, cells * cells).astype(F)
    x, y = np.broadcast_arrays(x, y)
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (F(3) - F(2) * fx), fy * fy * (F(3) - F(2) * fy)
    i, j = x0.astype(np.int32) % cells, y0.astype(np.int32) % cells
    i1, j1 = (i + 1) % cells, (j + 1) % cells
    j, j1 = j * cells, j1 * cells
    top = mix(grid[j + i], grid[j + i1], fx)
    return mix(top, mix(grid[j1 + i], grid[j1 + i1], fx), fy)


# ---------------------------------------------------------------- painting


@dataclass
class Scene:
    """A finished scene: pixels, a map of region numbers (index into REGIONS) and all factors."""

    pixels: Array  # (64, 64, 3) uint8
    regions: Array  # (64, 64) uint8
    factors: dict[str, Any]

    @property
    def name(self) -> str:
        """The class, "OBJECT on GROUND"."""
        return f"{self.factors['object']} on {self.factors['ground']}"

    def parts(self) -> list[str]:
        """Parts of the main object that can be seen."""
        thing = self.factors["object"]
        seen = set(np.unique(self.regions).tolist())
        return [p for p in PARTS[thing] if REGIONS.index(f"{thing}.{p}") in seen]

    def masks(self) -> dict[str, Array]:
        """Region → (64, 64) bool. Parts of the main object go by their plain names."""
        thing = self.factors["object"]
        names = {p: f"{thing}.{p}" for p in PARTS[thing]} | {b: b for b in BACKGROUND}
        return {n: self.regions == REGIONS.index(full) for n, full in names.items()}


@dataclass
class Brush:
    """A window of the canvas at twice its resolution, in the local frame of one object.

    u grows to the right, v upwards from the foot of the object; both in units of its height.
    """

    image: Array  # (h, w, 3) float32
    regions: Array  # (h, w) uint8
    u: Array
    v: Array
    pixel: float  # size of a fine pixel in local units
    light: float  # -1 light from the left, +1 from the right
    label: int = 0
    part_labels: dict[str, int] = field(default_factory=dict)

    def paint(self, part: str, distance: Array, colour: Array, shade: Array | None = None) -> None:
        """Lay a colour, times a shade (h, w) where given, over the inside of a distance field."""
        cover = np.clip(F(0.5) - distance / F(self.pixel), F(0), F(1))
        colour = np.asarray(colour, F)
        if shade is not None:
            colour = colour * shade[..., None]
        self.image += (colour - self.image) * cover[..., None]
        self.regions[cover > 0.5] = self.part_labels.get(part, self.label)

    def side(self, strength: float = 0.22, width: float = 0.5) -> Array:
        """Brightness that falls from the lit to the dark side of the object."""
        ramp = np.clip(self.u * F(self.light / width), F(-1), F(1))
        return F(1 - strength / 3) + F(strength) * ramp

    def ball(self, cx: float, cy: float, r: float, strength: float = 0.55) -> Array:
        """Shade of a sphere lit from above, on the light's side."""
        x, y = (self.u - F(cx)) / F(r), (self.v - F(cy)) / F(r)
        z = np.sqrt(np.maximum(F(1) - x * x - y * y, F(0)))
        lit = F(0.45 * self.light) * x + F(0.55) * y + F(0.70) * z
        return F(1.05 - strength) + F(strength) * np.clip(lit, F(0), F(1))


def draw_house(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """Wall, roof, chimney, door and one window."""
    u, v, side = b.u, b.v, b.side()
    f, w = look["facing"], 0.36 + 0.10 * look["shape"]
    b.paint("chimney", box(u, v, f * 0.22, 0.80, 0.055, 0.16), second * 0.55, side)
    b.paint("wall", box(u, v, 0, 0.30, w, 0.30), colour, side)
    b.paint("roof", polygon(u, v, (-w - 0.12, 0.56), (w + 0.12, 0.56), (0.0, 1.0)), second, side)
    b.paint("door", box(u, v, -f * w * 0.42, 0.17, 0.085, 0.17), second * 0.42)
    b.paint("window", box(u, v, f * w * 0.42, 0.32, 0.115, 0.115), np.array([0.96, 0.97, 0.94]))
    b.paint("window", box(u, v, f * w * 0.42, 0.32, 0.08, 0.08), np.array([0.45, 0.68, 0.86]))


def draw_tree(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """A tapered trunk and a crown of three overlapping balls, or a cone."""
    u, v = b.u, b.v
    bark = np.array([0.36, 0.23, 0.13])
    b.paint("trunk", polygon(u, v, (-0.085, 0.0), (0.085, 0.0), (0.055, 0.6), (-0.055, 0.6)), bark,
            b.side(0.3, 0.1))
    if look["shape"] < 0.3:
        for low, high, half in ((0.26, 0.68, 0.36), (0.46, 0.86, 0.29), (0.66, 1.02, 0.21)):
            b.paint("crown", polygon(u, v, (-half, low), (half, low), (0.0, high)), colour,
                    b.side(0.4, 0.3) * (F(0.62) + F(0.38) * np.clip((v - F(low)) / F(0.3), 0, 1)))
        return
    wide = 0.20 + 0.05 * look["shape"]
    crown = np.minimum(circle(u, v, -wide, 0.58, 0.235), circle(u, v, wide, 0.58, 0.235))
    crown = np.minimum(crown, circle(u, v, 0.0, 0.72, 0.30))
    b.paint("crown", crown, colour, b.ball(0, 0.62, 0.48, 0.75))
    for cx, cy in ((-0.17, 0.58), (0.13, 0.76), (0.2, 0.53)):
        b.paint("crown", circle(u, v, cx, cy, 0.085), colour * 1.16, b.ball(cx, cy, 0.2, 0.5))


def draw_car(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """Body, cabin with a window, two wheels; drives towards its facing."""
    u, v, f = b.u, b.v, look["facing"]
    side = b.side(0.16, 0.8)
    back = -0.40 - 0.12 * look["shape"]
    b.paint("cabin", polygon(u, v, (f * back, 0.5), (f * 0.36, 0.5), (f * 0.16, 0.84),
                             (f * (back + 0.1), 0.84)), colour * 0.86, side)
    b.paint("window", polygon(u, v, (f * (back + 0.10), 0.52), (f * 0.24, 0.52), (f * 0.11, 0.76),
                              (f * (back + 0.15), 0.76)), np.array([0.66, 0.85, 0.94]))
    b.paint("cabin", box(u, v, f * (back + 0.34) * 0.5, 0.63, 0.035, 0.15), colour * 0.8)
    b.paint("body", box(u, v, 0, 0.36, 0.72, 0.18, 0.09), colour, side)
    b.paint("body", box(u, v, 0, 0.24, 0.70, 0.045), colour * 0.7, side)
    b.paint("body", circle(u, v, f * 0.65, 0.40, 0.06), np.array([1.0, 0.95, 0.65]))
    for cx in (-0.42, 0.42):
        b.paint("wheels", circle(u, v, cx, 0.17, 0.175), np.array([0.10, 0.10, 0.11]))
        b.paint("wheels", circle(u, v, cx, 0.17, 0.085), np.array([0.74, 0.75, 0.77]))


def draw_boat(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """Hull with a bright rim, mast, sail and jib."""
    u, v, f = b.u, b.v, look["facing"]
    tall = 0.94 + 0.06 * look["shape"]
    b.paint("mast", box(u, v, 0, 0.58, 0.025, 0.42), np.array([0.38, 0.25, 0.15]))
    b.paint("sail", polygon(u, v, (f * 0.04, 0.32), (f * 0.52, 0.32), (f * 0.04, tall)), second,
            b.side(0.18, 0.5))
    b.paint("jib", polygon(u, v, (-f * 0.05, 0.34), (-f * 0.38, 0.34), (-f * 0.05, 0.82)),
            mix(second, np.ones(3), 0.55), b.side(0.18, 0.5))
    b.paint("hull", polygon(u, v, (-0.58, 0.27), (0.58, 0.27), (0.38, 0.0), (-0.38, 0.0)), colour,
            b.side(0.2, 0.6))
    b.paint("hull", box(u, v, 0, 0.26, 0.60, 0.035), mix(colour, np.ones(3), 0.6))


def draw_ball(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """A beach ball of six panels around a cap, turned by the tilt."""
    u, v = b.u, b.v - F(0.5)
    turn = look["tilt"] * 1.5 + look["shape"]
    cx, cy = 0.16 * np.cos(turn), 0.10 + 0.10 * np.sin(turn)
    shade = b.ball(0, 0.5, 0.5, 0.7)
    outline = circle(u, v, 0, 0, 0.5)
    b.paint("panels", outline, colour, shade)
    x, y = u - F(cx), v - F(cy)
    # Three pale wedges of 60 degrees: sin(3a) > 0, its distance is the arc to the wedge's edge.
    wedge = -np.sin(F(3) * (np.arctan2(y, x) + F(turn))) * np.hypot(x, y) / F(3)
    b.paint("panels", np.maximum(outline, wedge), second, shade)
    b.paint("cap", np.maximum(outline, circle(u, v, cx, cy, 0.1)), np.array([0.97, 0.95, 0.90]),
            shade)


def draw_mushroom(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """A pale stem and a domed cap with spots."""
    u, v = b.u, b.v
    w = 0.46 + 0.08 * look["shape"]
    b.paint("stem", polygon(u, v, (-0.17, 0.0), (0.17, 0.0), (0.12, 0.6), (-0.12, 0.6)),
            np.array([0.93, 0.88, 0.78]), b.side(0.3, 0.16))
    cap = np.maximum(ellipse(u, v, 0, 0.48, w, 0.5), F(0.48) - v)
    shade = b.ball(0, 0.45, 0.62, 0.6)
    b.paint("cap", ellipse(u, v, 0, 0.49, w * 0.97, 0.075), mix(colour * 0.5, np.ones(3), 0.2))
    b.paint("cap", cap, colour, shade)
    for cx, cy, r in ((-0.24, 0.66, 0.075), (0.03, 0.80, 0.085), (0.27, 0.63, 0.07)):
        b.paint("spots", circle(u, v, cx, cy, r), second, shade)


def draw_balloon(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """A striped hot-air balloon, ropes and a basket."""
    u, v = b.u, b.v
    envelope = np.minimum(circle(u, v, 0, 0.66, 0.345),
                          polygon(u, v, (-0.28, 0.46), (0.28, 0.46), (0.09, 0.20), (-0.09, 0.20)))
    b.paint("ropes", polygon(u, v, (-0.10, 0.22), (0.10, 0.22), (0.085, 0.1), (-0.085, 0.1)),
            np.array([0.46, 0.36, 0.24]))
    shade = b.ball(0, 0.62, 0.42, 0.6)
    b.paint("envelope", envelope, colour, shade)
    stripe = 0.075 + 0.03 * look["shape"]
    wide = np.sqrt(np.maximum(F(1) - ((v - F(0.64)) / F(0.5)) ** 2, F(0.04)))
    for cx in (-0.2, 0.0, 0.2):
        b.paint("envelope", np.maximum(envelope, np.abs(u - F(cx) * wide) - F(stripe * 0.6) * wide),
                second, shade)
    b.paint("basket", box(u, v, 0, 0.07, 0.10, 0.07, 0.02), np.array([0.47, 0.30, 0.16]),
            b.side(0.3, 0.1))


def draw_snowman(b: Brush, colour: Array, second: Array, look: dict[str, float]) -> None:
    """Two snowballs, hat, scarf, carrot and eyes."""
    u, v, f = b.u, b.v, look["facing"]
    snow = np.array([0.95, 0.96, 0.99])
    b.paint("body", circle(u, v, 0, 0.26, 0.28), snow, b.ball(0, 0.26, 0.28, 0.5))
    for cy in (0.20, 0.33):
        b.paint("body", circle(u, v, f * 0.04, cy, 0.03), np.array([0.14, 0.14, 0.16]))
    b.paint("head", circle(u, v, 0, 0.62, 0.19), snow, b.ball(0, 0.62, 0.19, 0.5))
    b.paint("scarf", box(u, v, 0, 0.47, 0.165, 0.045, 0.03), second)
    b.paint("scarf", box(u, v, f * 0.11, 0.37, 0.045, 0.11, 0.02), second * 0.86)
    b.paint("eyes", circle(u, v, f * 0.04 - 0.07, 0.66, 0.026), np.array([0.1, 0.1, 0.12]))
    b.paint("eyes", circle(u, v, f * 0.04 + 0.07, 0.66, 0.026), np.array([0.1, 0.1, 0.12]))
    b.paint("nose", polygon(u, v, (f * 0.02, 0.635), (f * 0.02, 0.565), (f * 0.26, 0.59)),
            np.array([0.96, 0.50, 0.10]))
    tall = 0.10 + 0.03 * look["shape"]
    b.paint("hat", box(u, v, 0, 0.90, 0.125, tall), colour, b.side(0.3, 0.14))
    b.paint("hat", box(u, v, 0, 0.785, 0.21, 0.032), colour * 0.8)


DRAW = dict(zip(OBJECTS, (draw_house, draw_tree, draw_car, draw_boat, draw_ball, draw_mushroom,
                          draw_balloon, draw_snowman), strict=True))
# Height and half width of each object for a size of one, and how it leans (radians at most).
HEIGHT = {"house": 0.86, "tree": 1.08, "car": 0.78, "boat": 1.0, "ball": 0.74, "mushroom": 0.86,
          "balloon": 1.02, "snowman": 1.04}  # fmt: skip
HALF_WIDTH = {"house": 0.6, "tree": 0.5, "car": 0.76, "boat": 0.62, "ball": 0.52, "mushroom": 0.58,
              "balloon": 0.38, "snowman": 0.34}  # fmt: skip
LEAN = {"house": 0.0, "tree": 0.07, "car": 0.08, "boat": 0.12, "ball": 1.0, "mushroom": 0.10,
        "balloon": 0.10, "snowman": 0.06}  # fmt: skip

_CENTRES = ((np.arange(SIZE) + 0.5) / SIZE).astype(F)
_FINE = ((np.arange(2 * SIZE) + 0.5) / (2 * SIZE)).astype(F)
PIXEL = 1.0 / SIZE


def place(image: Array, regions: Array, thing: dict[str, Any], light: float, tint: Array,
          label: int, parts: dict[str, int]) -> None:
    """Draw one object (its factors in `thing`) into image (64, 64, 3) and regions (64, 64)."""
    kind = thing["object"]
    scale = thing["size"] * HEIGHT[kind]
    reach = max(1.05, HALF_WIDTH[kind] + 0.1) * scale + 2 * PIXEL
    side = (HALF_WIDTH[kind] + 0.12) * scale + 2 * PIXEL
    x, y = thing["x"], thing["y"]
    x0, x1 = max(int((x - side) * SIZE), 0), min(int((x + side) * SIZE) + 1, SIZE)
    y0, y1 = max(int((y - reach) * SIZE), 0), min(int((y + 0.1 * scale) * SIZE) + 2, SIZE)
    if x0 >= x1 or y0 >= y1:
        return
    du = (_FINE[2 * x0 : 2 * x1] - F(x))[None, :] / F(scale)
    dv = (F(y) - _FINE[2 * y0 : 2 * y1])[:, None] / F(scale)
    lean = thing["tilt"] * LEAN[kind] if kind != "ball" else 0.0
    c, s = F(np.cos(lean)), F(np.sin(lean))
    window = image[y0:y1, x0:x1].repeat(2, 0).repeat(2, 1)
    inner = regions[y0:y1, x0:x1].repeat(2, 0).repeat(2, 1)
    brush = Brush(window, inner, du * c - dv * s, du * s + dv * c, 0.5 * PIXEL / scale, light,
                  label, parts)
    DRAW[kind](brush, np.array(thing["colour_rgb"]) * tint, np.array(thing["second_rgb"]) * tint,
               thing)
    h, w = y1 - y0, x1 - x0
    image[y0:y1, x0:x1] = window.reshape(h, 2, w, 2, 3).mean((1, 3))
    # A pixel belongs to what two or more of its four fine pixels agree on, else to the first.
    quad = inner.reshape(h, 2, w, 2).transpose(0, 2, 1, 3).reshape(h, w, 4)
    regions[y0:y1, x0:x1] = np.where(quad[..., 1] == quad[..., 2], quad[..., 1],
                                     np.where(quad[..., 3] == quad[..., 2], quad[..., 3],
                                              quad[..., 0]))


def cast_shadow(image: Array, thing: dict[str, Any], light: float, strength: float) -> None:
    """Darken the ground beside the foot of an object, away from the light."""
    kind = thing["object"]
    scale = thing["size"] * HEIGHT[kind]
    half = HALF_WIDTH[kind] * scale * 0.95
    y = thing["shadow_y"]
    cx = thing["x"] - light * 0.30 * scale * (0.4 if kind == "balloon" else 1.0)
    top, end = int((y - 0.12 * scale) * SIZE), int((y + 0.12 * scale) * SIZE) + 2
    rows = slice(max(top, 0), min(end, SIZE))
    d = ellipse(_CENTRES[None, :], _CENTRES[rows, None], cx, y, half, max(0.085 * scale, PIXEL))
    cover = np.clip(F(0.5) - d / F(3 * PIXEL), 0, 1) * F(strength)
    image[rows] *= F(1) - cover[..., None]


# ---------------------------------------------------------------- factors and the scene itself


def jitter(rng: np.random.Generator, name: str, amount: float = 0.05) -> list[float]:
    """A named colour, moved a little."""
    rgb = np.array(COLOURS[name]) * rng.uniform(0.88, 1.06) + rng.uniform(-amount, amount, 3)
    return [round(float(c), 4) for c in np.clip(rgb, 0.03, 1.0)]


def draw_thing(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    """The factors that every object has, large or small, but its place."""
    colour = str(rng.choice(OWN_COLOURS[kind]))
    second = str(rng.choice([c for c in (*BODY, "white") if c != colour]))
    if kind in ("mushroom", "ball", "boat") and rng.random() < 0.6:
        second = "white"
    if kind == "house":
        second = str(rng.choice([c for c in ("red", "brown", "blue", "purple") if c != colour]))
    return {
        "object": kind, "colour": colour, "second": second,
        "colour_rgb": jitter(rng, colour), "second_rgb": jitter(rng, second),
        "facing": int(rng.choice([-1, 1])), "tilt": round(float(rng.uniform(-1, 1)), 4),
        "shape": round(float(rng.random()), 4),
    }  # fmt: skip


def draw_factors(rng: np.random.Generator) -> dict[str, Any]:
    """All factors of a scene: enough, with the texture's generator, to draw it."""
    kind, ground = str(rng.choice(OBJECTS)), str(rng.choice(GROUNDS))
    f: dict[str, Any] = {
        "object": kind, "ground": ground, "sky": str(rng.choice(SKIES)),
        "light": str(rng.choice(LIGHTS)), "level": round(float(rng.uniform(0.82, 1.08)), 4),
        "horizon": round(float(rng.uniform(0.44, 0.60)), 4),
        "sun": bool(rng.random() < 0.55), "clouds": int(rng.integers(0, 4)),
        "hills": int(rng.integers(0, 3)),
    }  # fmt: skip
    if f["sky"] == "overcast":
        f["sun"], f["clouds"] = False, max(f["clouds"], 2)
    sign = 1 if f["light"] == "right" else -1
    f["sun_x"] = round(0.5 + sign * float(rng.uniform(0.18, 0.40)), 4)
    f["sun_y"] = round(float(rng.uniform(0.09, 0.24)), 4)
    main = draw_thing(rng, kind)
    main["size"] = round(float(rng.uniform(0.46, 0.66)), 4)
    main["x"] = round(float(rng.uniform(0.32, 0.68)), 4)
    foot = float(rng.uniform(f["horizon"] + 0.16, 0.90))
    main["shadow_y"] = main["y"] = round(max(foot, main["size"] * HEIGHT[kind] + 0.06), 4)
    if kind == "balloon":
        top = float(rng.uniform(0.05, 0.16))
        main["y"] = round(top + main["size"] * HEIGHT[kind], 4)
        main["shadow_y"] = round(float(rng.uniform(0.84, 0.92)), 4)
    f["main"] = main
    sides = [-1, 1] if rng.random() < 0.5 else [1, -1]
    f["small"] = []
    for side in sides[: int(rng.choice([0, 1, 2], p=[0.35, 0.40, 0.25]))]:
        thing = draw_thing(rng, str(rng.choice(OBJECTS)))
        thing["size"] = round(float(rng.uniform(0.20, 0.27)), 4)
        gap = HALF_WIDTH[kind] * main["size"] * HEIGHT[kind]
        thing["x"] = round(float(np.clip(main["x"] + side * (gap + rng.uniform(0.11, 0.22)),
                                         0.11, 0.89)), 4)
        thing["shadow_y"] = thing["y"] = round(f["horizon"] + float(rng.uniform(0.07, 0.20)), 4)
        if thing["object"] == "balloon":
            thing["y"] = round(float(rng.uniform(0.26, 0.40)), 4)
        f["small"].append(thing)
    return f


def paint_sky(rng: np.random.Generator, f: dict[str, Any], image: Array, regions: Array) -> None:
    """Gradient, glow and disk of the sun, soft clouds."""
    x, y = _CENTRES[None, :], _CENTRES[:, None]
    top, low, tint = (np.array(c, F) for c in SKY_COLOURS[f["sky"]])
    shift = rng.uniform(-0.05, 0.05, 3).astype(F)
    ramp = np.clip(y / F(f["horizon"]), 0, 1)[..., None]
    image[:] = mix(top + shift, low + shift * F(0.5), ramp)
    if f["sun"]:
        d = circle(x, y, f["sun_x"], f["sun_y"], 0.065)
        glow = np.exp(-np.maximum(d, F(0)) * F(9))[..., None] * F(0.35)
        image += (np.array([1.0, 0.90, 0.62], F) - image) * glow
        cover = np.clip(F(0.5) - d / F(PIXEL), 0, 1)
        image += (np.array([1.0, 0.94, 0.66], F) - image) * cover[..., None]
        regions[cover > 0.5] = REGIONS.index("sun")
    white = mix(np.ones(3, F) * tint, low, 0.25)
    for _ in range(f["clouds"]):
        cx, cy = rng.uniform(0.05, 0.95), rng.uniform(0.06, f["horizon"] * 0.72)
        wide = rng.uniform(0.10, 0.19)
        density = np.zeros((SIZE, SIZE), F)
        for k in (-0.65, -0.1, 0.55):
            r = wide * rng.uniform(0.45, 0.75)
            d = ((x - F(cx + k * wide)) / F(r * 1.25)) ** 2
            d = d + ((y - F(cy - 0.25 * r)) / F(r * 0.62)) ** 2
            density = np.maximum(density, np.exp(-d * d))
        image += (white - image) * (density * F(rng.uniform(0.65, 0.9)))[..., None]


def paint_hills(rng: np.random.Generator, f: dict[str, Any], image: Array, regions: Array) -> None:
    """Up to two ridges behind the horizon, paler with distance."""
    x, y = _CENTRES[None, :], _CENTRES[:, None]
    _, low, tint = (np.array(c, F) for c in SKY_COLOURS[f["sky"]])
    base = np.array([[0.24, 0.42, 0.34], [0.36, 0.38, 0.52], [0.48, 0.40, 0.34]], F)
    base = base[int(rng.integers(0, 3))] * tint
    for k in range(f["hills"]):
        height = rng.uniform(0.05, 0.10) + (0.05 if f["hills"] == 2 and k == 0 else 0.0)
        a, p, q = rng.uniform(0.35, 0.8), rng.uniform(0, 6.28), rng.uniform(0, 6.28)
        wave = np.sin(x * F(6.28 * a) + F(p)) * F(0.6)
        wave = wave + np.sin(x * F(6.28 * 1.9 * a) + F(q)) * F(0.4)
        ridge = F(f["horizon"] - height) - wave * F(0.055)
        cover = np.clip(F(0.5) + (y - ridge) / F(PIXEL), 0, 1)
        colour = mix(base, low, 0.60 - 0.30 * k if f["hills"] == 2 else 0.35)
        image += (colour - image) * cover[..., None]
        regions[cover > 0.5] = REGIONS.index("hills")


def paint_ground(rng: np.random.Generator, f: dict[str, Any], image: Array, regions: Array) -> None:
    """A textured plane below the horizon; its grain grows towards the viewer."""
    first = int(f["horizon"] * SIZE) - 1
    x, y = _CENTRES[None, :], _CENTRES[first:, None]
    near, far, strength = GROUND_COLOURS[f["ground"]]
    depth = np.clip((y - F(f["horizon"])) / F(1 - f["horizon"]), 0, 1)
    zoom = F(1.35) - F(0.55) * depth
    u, v = (x - F(0.5)) * zoom * F(SIZE), np.sqrt(depth + F(0.02)) * F(SIZE * 0.62)
    kind = f["ground"]
    if kind == "grass":
        tone = smooth_noise(rng, u / F(4), v / F(6)) * F(0.75)
        tone = tone + smooth_noise(rng, u / F(11), v / F(9)) * F(0.6)
    elif kind == "sand":
        bend = smooth_noise(rng, u / F(15), v / F(15)) * F(4.5)
        tone = np.sin((v + bend + u * F(0.12)) * F(0.85)) * F(0.7) + bend * F(0.12)
    elif kind == "rock":
        tone = np.tanh(smooth_noise(rng, u / F(6), v / F(5)) * F(2.2)) * F(0.7)
        tone = tone + smooth_noise(rng, u / F(3.5), v / F(3.5)) * F(0.3)
    elif kind == "snow":
        tone = smooth_noise(rng, u / F(10), v / F(7))
        tone = tone + smooth_noise(rng, u / F(5), v / F(4)) * F(0.4)
    else:
        bend = smooth_noise(rng, u / F(9), v / F(6)) * F(2.6)
        tone = np.sin((v + bend) * F(1.05)) * F(0.62)
        tone = tone + smooth_noise(rng, u / F(8), v / F(3)) * F(0.5)
    _, low, tint = (np.array(c, F) for c in SKY_COLOURS[f["sky"]])
    colour = mix(np.array(far, F), np.array(near, F), depth[..., None])
    grain = F(strength) * tone * (F(0.45) + F(0.55) * depth)
    colour = colour * (F(1) + grain[..., None]) * tint
    if kind == "water":
        colour = mix(colour, low, F(0.30) * (F(1) - depth[..., None]) + F(0.06))
    colour = colour + rng.uniform(-0.035, 0.035, 3).astype(F)
    cover = np.clip(F(0.5) + (y - F(f["horizon"])) / F(PIXEL), 0, 1)
    image[first:] += (colour - image[first:]) * cover[..., None]
    regions[first:][(cover > 0.5)[:, 0]] = REGIONS.index("ground")


def draw_scene(seed: int) -> Scene:
    """Draw the scene of a seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    f = draw_factors(rng)
    image = np.empty((SIZE, SIZE, 3), F)
    regions = np.zeros((SIZE, SIZE), np.uint8)
    paint_sky(rng, f, image, regions)
    paint_hills(rng, f, image, regions)
    paint_ground(rng, f, image, regions)
    light = 1.0 if f["light"] == "right" else -1.0
    tint = np.array(SKY_COLOURS[f["sky"]][2], F)
    dark = 0.18 if f["sky"] == "overcast" else 0.36
    for k, thing in enumerate(sorted(f["small"], key=lambda s: s["y"])):
        cast_shadow(image, thing, light, dark * 0.8)
        place(image, regions, thing, light, tint, REGIONS.index(f"small{k + 1}"), {})
    kind = f["object"]
    cast_shadow(image, f["main"], light, dark)
    place(image, regions, f["main"], light, tint, 0,
          {p: REGIONS.index(f"{kind}.{p}") for p in PARTS[kind]})
    pixels = np.clip(image * F(f["level"]) * F(255) + F(0.5), 0, 255).astype(np.uint8)
    return Scene(pixels, regions, f)


def main() -> None:
    """Write a set of scenes with their labels."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--count", type=int, required=True, help="number of scenes")
    ap.add_argument("--seed", type=int, required=True, help="seed of the first scene")
    ap.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    ap.add_argument("--masks", action="store_true", help="also masks/NAME.npz, one array a part")
    args = ap.parse_args()
    if args.count < 1 or args.seed < 0:
        ap.error("--count must be at least 1 and --seed at least 0")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.masks:
        (args.out / "masks").mkdir(exist_ok=True)
    labels = {}
    for i in range(args.count):
        scene = draw_scene(args.seed + i)
        Image.fromarray(scene.pixels).save(args.out / f"{i:05d}.png")
        if args.masks:
            np.savez_compressed(args.out / "masks" / f"{i:05d}.npz", **scene.masks())
        labels[f"{i:05d}.png"] = {"class": scene.name, "object": scene.factors["object"],
                                  "parts": scene.parts(),
                                  "factors": {"seed": args.seed + i} | scene.factors}
    (args.out / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


if __name__ == "__main__":
    main()
