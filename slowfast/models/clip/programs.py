"""Compiling a tower: programs of fixed shapes for what comes all the time, eager code for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOST_SHAPES = 2
"""Programs of each mode. A batch that is cut into nearly equal parts has two sizes; the last one of a test is rare."""
_MOST_PROGRAMS = 64
"""Of all towers of a process together, which share them where they are alike."""


class FixedShapes:
    """Compiles a tower for the first input shapes that it meets in each mode.

    A program for any batch size would be slower, and one for every size would cost minutes for a batch that comes once.
    Programs are one graph without a break, and draw random numbers from the stream of eager code, so that compiling
    changes no number but for rounding. Copies of the tower are not compiled.

    Args:
        tower: any module with one tensor as input.
    """

    def __init__(self, tower: nn.Module) -> None:
        import torch._dynamo

        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _MOST_PROGRAMS)
        tower.compile(fullgraph=True, dynamic=False, options={"fallback_random": True})
        self._shapes: dict[tuple[bool, bool], set[torch.Size]] = {}

    def __call__(self, tower: nn.Module, x: Tensor) -> Any:  # noqa: ANN401 - whatever the tower gives
        """Run the tower, as a program if the shape of x is among the first of its mode."""
        known = self._shapes.setdefault((tower.training, torch.is_grad_enabled()), set())
        if x.shape not in known and len(known) < MOST_SHAPES:
            known.add(x.shape)
        return tower(x) if x.shape in known else tower.forward(x)
