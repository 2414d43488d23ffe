"""Training of the classifier and of the judge: what their maps are asked to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import CODES, COLOUR_NAMES, VALUES, Scenes
from loop import Draw, Plan, fit
from nets import MAP, classifier, convnext, features, normalised, swin
from scenes import CLASSES, GROUNDS, OBJECTS, REGIONS, SKIES
from torch import Tensor, nn

# Number of values of each integer factor, for the auxiliary heads.
ARITY = {"object": len(OBJECTS), "ground": len(GROUNDS), "sky": len(SKIES), "light": 2, "sun": 2,
         "clouds": 4, "hills": 3, "colour": len(COLOUR_NAMES), "second": len(COLOUR_NAMES),
         "facing": 2, "small1": len(OBJECTS) + 1, "small2": len(OBJECTS) + 1,
         "small1_colour": len(COLOUR_NAMES) + 1, "small2_colour": len(COLOUR_NAMES) + 1,
         "small1_side": 3, "small2_side": 3}  # fmt: skip
PRESENCE = ("sun_x", "sun_y", "small1_x", "small1_y", "small2_x", "small2_y")


def degraded(x: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the batch a little blurred, a third with faint noise, all in random brightness.

    The map should hold what the picture shows, not the last grain of it.
    """
    n = len(x)
    third = n // 3
    order = torch.randperm(n, generator=generator)
    weight = torch.rand(third, 1, 1, 1, generator=generator)
    x = x * (1 + 0.06 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5))
    blurred = F.avg_pool2d(F.pad(x[order[:third]], (1, 1, 1, 1), mode="replicate"), 3, 1)
    x[order[:third]] = torch.lerp(x[order[:third]], blurred, weight)
    rows = order[third : 2 * third]
    x[rows] = x[rows] + 0.12 * weight * torch.randn(x[rows].shape, generator=generator)
    return x


class Probe(nn.Module):
    """A backbone with heads that are dropped after training.

    From the spatial mean: every factor. From each position of the map: how much of its 8x8 pixels
    each region covers, and the mean colour of its four quarters.
    """

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.codes = nn.ModuleDict({k: nn.Linear(channels, n) for k, n in ARITY.items()})
        self.values = nn.Linear(channels, len(VALUES))
        self.dense = nn.Conv2d(channels, len(REGIONS) + 12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images to the map (N,C,8,8) and the logits."""
        return features(self.backbone, x)


def covers(regions: np.ndarray, chunk: int = 5000) -> Tensor:
    """Pixels of each 8x8 cell that a region covers: (N,64,64) to (N,R,8,8) uint8, 0 to 64."""
    out = torch.empty(len(regions), len(REGIONS), 8, 8, dtype=torch.uint8)
    for i in range(0, len(regions), chunk):
        cells = np.asarray(regions[i : i + chunk]).reshape(-1, 8, 8, 8, 8)
        for r in range(len(REGIONS)):
            out[i : i + chunk, r] = torch.from_numpy((cells == r).sum((2, 4), dtype=np.uint8))
    return out


def probe_loss(probe: Probe, data: Scenes, targets: Tensor, cover: Tensor,
               draw: Draw, dense: float = 1.0) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of the class, plus the auxiliary terms."""
    rows = draw.rows.numpy()
    clean = normalised(torch.from_numpy(data.images[rows]))
    grid, logits = probe(degraded(clean.clone(), draw.generator))
    main = F.cross_entropy(logits, targets[draw.rows], label_smoothing=0.02)
    pooled = grid.mean((2, 3))
    codes = torch.from_numpy(data.codes[rows].astype(np.int64))
    side = sum(F.cross_entropy(head(pooled), codes[:, CODES.index(k)])
               for k, head in probe.codes.items())
    values = torch.from_numpy(np.ascontiguousarray(data.values[rows]))
    seen = torch.ones_like(values)
    for k in PRESENCE:
        code = k.split("_")[0]
        seen[:, VALUES.index(k)] = (codes[:, CODES.index(code)] > 0).float()
    error = F.smooth_l1_loss(probe.values(pooled), values, beta=0.1, reduction="none")
    real = (error * seen).mean()
    cover = cover[draw.rows].float() / 64
    quarters = F.pixel_unshuffle(F.avg_pool2d(clean, 4), 2)
    out = probe.dense(grid)
    parts = -(cover * out[:, : len(REGIONS)].log_softmax(1)).sum(1).mean()
    shade = F.l1_loss(out[:, len(REGIONS) :], quarters)
    loss = main + 0.15 * side + 2.0 * real + dense * (0.7 * parts + 1.5 * shade)
    right = (logits.argmax(1) == targets[draw.rows]).float().mean()
    terms = {"class": main, "codes": side, "values": real, "regions": parts, "shade": shade,
             "top1": right}
    return loss, {k: float(v.detach()) for k, v in terms.items()}


@torch.no_grad()
def maps_of(backbone: nn.Module, images: np.ndarray, batch: int = 250) -> tuple[Tensor, Tensor]:
    """uint8 (N,64,64,3) to maps (N,C,8,8) and logits (N,K), float32."""
    maps, logits = [], []
    for i in range(0, len(images), batch):
        grid, out = features(backbone, normalised(torch.from_numpy(images[i : i + batch])))
        maps.append(grid.contiguous())
        logits.append(out)
    return torch.cat(maps), torch.cat(logits)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Per image, the median over positions of the channel cosine of two maps (N,C,h,w)."""
    return F.cosine_similarity(a.flatten(2), b.flatten(2), dim=1).median(dim=1).values


def other_of_class(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each image the index of another one with the same label (itself where it is alone)."""
    rng = np.random.default_rng(seed)
    out = np.arange(len(labels))
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        out[members] = np.roll(members, 1)
    return out


def spread(maps: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Cosine of shuffled pairs and of same-class pairs, plain and centred."""
    centre = maps.mean((0, 2, 3)).view(1, -1, 1, 1)
    mate = torch.from_numpy(other_of_class(labels))
    out = {}
    for name, pair in (("shuffled", torch.arange(len(maps)).roll(1)), ("same_class", mate)):
        out[name] = round(float(cosine(maps, maps[pair]).mean()), 4)
        out[f"{name}_centred"] = round(float(cosine(maps - centre, maps[pair] - centre).mean()), 4)
    return out


def judge_labels(data: Scenes) -> np.ndarray:
    """The judge's task: object x light x kind of sky, 80 labels."""
    return (data.code("object") * 2 + data.code("light")) * len(SKIES) + data.code("sky")


def train_backbone(name: str, train: Scenes, valid: Scenes, folder: Path, plan: Plan) -> nn.Module:
    """Train a classifier of scenes, or the judge; returns it without its auxiliary heads."""
    torch.manual_seed(plan.seed)
    labels, held = train.labels, valid.labels
    if name == "judge":
        labels, held = judge_labels(train), judge_labels(valid)
        backbone = convnext(len(OBJECTS) * 2 * len(SKIES))
    else:
        backbone = {"classifier": classifier, "convnext": convnext, "swin": swin}[name]()
    probe = Probe(backbone, MAP[0]).to(memory_format=torch.channels_last)
    targets, cover = torch.from_numpy(labels), covers(train.regions)

    def check(model: nn.Module) -> dict[str, float]:
        maps, logits = maps_of(model.backbone, valid.images)
        top1 = float((logits.argmax(1).numpy() == held).mean())
        return {"top1": round(top1, 4)} | spread(maps, held if name == "judge" else valid.labels)

    dense = 0.3 if name == "judge" else 1.0
    model = fit(plan, probe, lambda d: probe_loss(probe, train, targets, cover, d, dense),
                len(train), folder, check, check_every=500)
    return model.backbone


assert len(CLASSES) == len(OBJECTS) * len(GROUNDS)
