"""What is computed from weights and needed again and again, such as the texts of the classes in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from slowfast.models.similarity import without_autocast

T = TypeVar("T")


class KeepingModule(nn.Module):
    """A module that keeps one value as long as nothing writes to the tensors that it was computed from.

    Training what learns drops it: the fused kernels of PyTorch's optimisers write without leaving a trace.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: object = None
        self._kept_for: tuple[object, ...] | None = None
        self._learns = False

    def keep(self, sources: Iterable[Tensor], compute: Callable[[], T]) -> T:
        """Compute a value, without gradient and in the tensors' own precision, unless the last one still holds.

        A write through ``.data``, or by a fused optimiser in evaluation mode, leaves no trace, and is not seen.

        Args:
            sources: all tensors that the value depends on and that may change.
            compute: makes the value; the same one in every call.
        """
        sources = list(sources)
        state = tuple((id(t), t.data_ptr(), t.device, t.dtype, t._version) for t in sources)
        if self._kept_for != state:
            device = next((place for _, _, place, _, _ in state), torch.device("cpu"))
            # Evaluation may be what finds the change; training goes on with what it leaves.
            with torch.inference_mode(mode=False), torch.no_grad(), without_autocast(device.type):
                self._kept = compute()
            self._kept_for, self._learns = state, any(t.requires_grad for t in sources)
        return cast(T, self._kept)

    def forget(self) -> None:
        """Drop the value: what it depends on beside the sources has changed."""
        self._kept, self._kept_for = None, None

    def train(self, mode: bool = True) -> KeepingModule:
        """Switch the mode; what training changes must be computed anew afterwards."""
        if mode and self._learns:
            self.forget()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KeepingModule:
        """Move or convert; the value belongs to the weights as they were, whose place others may take."""
        self.forget()
        return super()._apply(fn, recurse)
