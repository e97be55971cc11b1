import subprocess
import sys

import pytest

from slowfast.report.tensorboard import TensorboardWriter


def test_scalars_can_be_read_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with TensorboardWriter(tmp_path) as writer:
        writer(3, {"Train/loss": 1.5, "Train/lr": 0.25})
        writer(4, {"Train/loss": 1.0})
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("Train/loss")] == [(3, 1.5), (4, 1.0)]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"TENSORBOARD\.ENABLE: True needs the package tensorboard"):
        TensorboardWriter(tmp_path)


def test_the_module_itself_does_not_import_tensorboard():
    code = "import sys, slowfast.report.tensorboard; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
