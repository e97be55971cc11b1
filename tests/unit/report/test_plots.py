import numpy as np
import pytest

from slowfast.report.plots import LearningCurve, confusion_percent, quickstart_picture, read_learning_curve

LOG = """\
json_stats: {"_type": "train_iter_", "epoch": "1/2", "iter": "10/20", "loss": 9.0}
json_stats: {"_type": "train_epoch", "epoch": "1/2", "loss": 2.5}
json_stats: {"_type": "val_epoch", "epoch": "1/2", "top1_err": 60.0}
json_stats: {"_type": "train_epoch", "epoch": "2/2", "loss": 1.5}
json_stats: {"_type": "val_epoch", "epoch": "2/2", "top1_err": 45.5}
"""


def test_curve_is_read_off_the_log_of_a_run(tmp_path):
    path = tmp_path / "json_stats.log"
    path.write_text(LOG)
    curve = read_learning_curve(path)
    assert curve.loss == ((1.0, 2.5), (2.0, 1.5))
    assert curve.val_top1 == ((1.0, 40.0), (2.0, 54.5))


def test_missing_and_broken_logs_are_named(tmp_path):
    path = tmp_path / "json_stats.log"
    with pytest.raises(ValueError, match=r"json_stats\.log: no such file"):
        read_learning_curve(path)
    path.write_text(LOG + "json_stats: {broken\n")
    with pytest.raises(ValueError, match=r"json_stats\.log, line 6: not a json_stats line"):
        read_learning_curve(path)


def test_confusion_is_in_percent_of_the_true_class():
    matrix = confusion_percent(np.array([[2, 1, 0], [0, 1, 0], [0, 0, 0]]))
    assert np.allclose(matrix, [[200 / 3, 100 / 3, 0], [0, 100, 0], [0, 0, 0]])


def test_picture_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    curve = LearningCurve(loss=((1.0, 2.0), (2.0, 1.0)), val_top1=((2.0, 50.0),))
    path = quickstart_picture(
        tmp_path / "new" / "picture.png",
        curves={"STDD": curve, "plain CLIP": LearningCurve(loss=(), val_top1=())},
        bars={"STDD": 50.0},
        matrix=np.eye(3) * 100,
        class_names=["a", "b", "c"],
        chance=100 / 3,
    )
    assert path.read_bytes().startswith(b"\x89PNG")
