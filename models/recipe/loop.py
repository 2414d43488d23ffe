"""One training loop for every stage: seeded, resumable, logged as JSON lines."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass
class Plan:
    """What a stage is trained with; kept in its log and in the bundle's provenance."""

    stage: str
    steps: int
    batch: int
    lr: float
    warmup: int = 200
    decay: float = 0.01  # weight decay
    ema: float = 0.999  # 0: none
    floor: float = 0.02  # last learning rate over the first
    clip: float = 1.0
    seed: int = 1
    stop: int = 0  # end before the schedule does, at this step; 0: at its end


@dataclass
class Draw:
    """What a step draws at random: rows of the training set and a generator of its own."""

    step: int
    rows: Tensor  # (batch,) int64
    generator: torch.Generator


def rate(plan: Plan, step: int) -> float:
    """Linear warm-up, then a half cosine down to floor * lr."""
    if step < plan.warmup:
        return plan.lr * (step + 1) / plan.warmup
    part = (step - plan.warmup) / max(plan.steps - plan.warmup, 1)
    return plan.lr * (plan.floor + (1 - plan.floor) * 0.5 * (1 + math.cos(math.pi * min(part, 1))))


def draws(plan: Plan, count: int, start: int) -> Iterator[Draw]:
    """Rows of a fresh permutation for each epoch; a step's draw depends on its number alone."""
    per_epoch = count // plan.batch
    order, epoch = None, -1
    for step in range(start, plan.stop or plan.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            shuffle = torch.Generator().manual_seed(plan.seed * 7919 + epoch)
            order = torch.randperm(count, generator=shuffle)
        first = (step % per_epoch) * plan.batch
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        yield Draw(step, order[first : first + plan.batch], generator)


def write_atomically(path: Path, state: object) -> None:
    """torch.save under a temporary name, then rename."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def fit(plan: Plan, model: nn.Module, loss_of: Callable[[Draw], tuple[Tensor, dict[str, float]]],
        count: int, folder: Path, check: Callable[[nn.Module], dict[str, float]] | None = None,
        check_every: int = 1000, save_every: int = 250, log_every: int = 50) -> nn.Module:
    """Train `model` (its parameters that require gradients); return it with averaged weights.

    The checkpoint `folder/STAGE.pt` holds model, average, optimiser and step: a run that was cut
    off goes on where it stood, with the same draws. A finished stage returns at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{plan.stage}.pt", folder / f"{plan.stage}.jsonl"
    trained = [p for p in model.parameters() if p.requires_grad]
    average = copy.deepcopy(model).requires_grad_(False) if plan.ema else None
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": plan.decay},
                                   {"params": vectors, "weight_decay": 0.0}], lr=plan.lr,
                                  betas=(0.9, 0.99), fused=True)
    start, spent = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        if average is not None:
            average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start, spent = state["step"], state["seconds"]
    began = time.perf_counter()

    def note(record: dict[str, object]) -> None:
        record["seconds"] = round(spent + time.perf_counter() - began, 1)
        with log.open("a") as out:
            out.write(json.dumps(record) + "\n")

    def save(step: int) -> None:
        write_atomically(path, {
            "model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
            "average": average.state_dict() if average is not None else None,
            "seconds": spent + time.perf_counter() - began, "plan": vars(plan)})

    if start == 0:
        note({"plan": vars(plan), "parameters": sum(p.numel() for p in trained)})
    total: dict[str, float] = {}
    for draw in draws(plan, count, start):
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = rate(plan, draw.step)
        loss, terms = loss_of(draw)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, plan.clip)
        optimiser.step()
        if average is not None:
            keep = min(plan.ema, (draw.step + 1) / (draw.step + 10))
            with torch.no_grad():
                pairs = [(a, m) for a, m in zip(average.parameters(), model.parameters())
                         if m.requires_grad]
                torch._foreach_lerp_([a for a, _ in pairs], [m for _, m in pairs], 1 - keep)
                for a, m in zip(average.buffers(), model.buffers()):
                    a.copy_(m)
        for key, value in ({"loss": float(loss.detach()), "norm": float(norm)} | terms).items():
            total[key] = total.get(key, 0.0) + value / log_every
        done = draw.step + 1
        if done % log_every == 0:
            note({"step": done} | {k: round(v, 5) for k, v in total.items()})
            total = {}
        if done % save_every == 0 or done == (plan.stop or plan.steps):
            save(done)
        if check is not None and (done % check_every == 0 or done == (plan.stop or plan.steps)):
            best = average if average is not None else model
            best.eval()
            with torch.no_grad():
                note({"step": done, "check": check(best)})
    best = average if average is not None else model
    return best.eval()
