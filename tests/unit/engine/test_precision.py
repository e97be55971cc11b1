import pytest
import torch

from slowfast.engine.precision import Precision, choose_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "mixed", "amp_dtype", "native_bf16", "expected"),
    [
        (CPU, False, "auto", False, None),
        (CPU, True, "auto", False, None),
        (CPU, True, "bfloat16", False, torch.bfloat16),
        (CPU, False, "bfloat16", False, None),
        (CUDA, False, "float16", True, None),
        (CUDA, True, "auto", True, torch.bfloat16),
        (CUDA, True, "auto", False, torch.float16),
        (CUDA, True, "float16", True, torch.float16),
        (CUDA, True, "bfloat16", False, torch.bfloat16),
    ],
)
def test_table(monkeypatch, device, mixed, amp_dtype, native_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native_bf16)
    precision = choose_precision(device, mixed=mixed, amp_dtype=amp_dtype)
    assert precision == Precision(device.type, expected)


def test_unknown_name():
    message = r"^TRAIN\.AMP_DTYPE: unknown value 'fp8'; allowed: auto, bfloat16, float16$"
    with pytest.raises(ValueError, match=message):
        choose_precision(CPU, mixed=False, amp_dtype="fp8")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_autocast(dtype):
    precision = Precision("cpu", dtype)
    weight = torch.ones(2, 2)
    for _ in range(2):
        with precision.autocast():
            assert (weight @ weight).dtype == (dtype or torch.float32)
    assert (weight @ weight).dtype == torch.float32


@pytest.mark.parametrize(("dtype", "active"), [(None, False), (torch.bfloat16, False), (torch.float16, True)])
def test_only_fp16_is_scaled(dtype, active):
    assert Precision("cpu", dtype).make_scaler().is_enabled() is active
