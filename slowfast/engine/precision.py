"""Mixed precision: which dtype a run computes in, and whether gradients need scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

AmpDtype = Literal["auto", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of autocast on one device; None computes in fp32."""

    device_type: str
    dtype: torch.dtype | None = None

    def autocast(self) -> torch.autocast:
        """A context for forward passes; a new one for every use."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def make_scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, active in fp16 only: bf16 has the exponent range of fp32."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)


def choose_precision(device: torch.device, *, mixed: bool, amp_dtype: AmpDtype = "auto") -> Precision:
    """Decide the dtype of a run.

    Args:
        device: where it runs.
        mixed: TRAIN.MIXED_PRECISION.
        amp_dtype: TRAIN.AMP_DTYPE; "auto" is bf16 where the hardware has it, else fp16, and fp32 on a CPU.

    Returns:
        The precision.

    Raises:
        ValueError: if the name is unknown.
    """
    if amp_dtype not in ("auto", "bfloat16", "float16"):
        raise ValueError(f"TRAIN.AMP_DTYPE: unknown value {amp_dtype!r}; allowed: auto, bfloat16, float16")
    if not mixed:
        return Precision(device.type)
    if amp_dtype != "auto":
        return Precision(device.type, getattr(torch, amp_dtype))
    if device.type != "cuda":
        return Precision(device.type)
    native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision(device.type, torch.bfloat16 if native_bf16 else torch.float16)
