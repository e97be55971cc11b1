"""Mistakes end with one line on stderr that names the key or the file, what was found and what is allowed."""

import json
import os
import pickle
import re
import shutil

import pytest
import torch

from slowfast.config.values import TEMPORAL_MODELING_TYPES
from slowfast.methods import METHODS
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict

KNOWN = "known are names that begin with model.visual., visual., text.transformer., vision_model., image_encoder."

every_method = pytest.mark.parametrize("recipe", METHODS, indirect=True)


@pytest.fixture
def refused(net, tmp_path):
    """Runs the command and returns its one error line: refused({KEY: value}, status=1)."""

    def run(options, *, status=1, **more):
        found, _, err = net({"OUTPUT_DIR": tmp_path / "out", **options}, **more)
        assert found == status, err
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        assert err.endswith("\n"), err
        return err.removeprefix("error: ").removesuffix("\n")

    return run


@pytest.fixture
def copied(dataset, tmp_path):
    """A folder of annotation files of its own; the videos stay where they are."""
    for name in ("train.csv", "val.csv", "test.csv", "classes.json"):
        shutil.copy(dataset / name, tmp_path)
    return tmp_path


def test_unknown_key(refused):
    assert refused({"MODEL.TEMPORAL_MODELLING_TYPE": "None"}, status=2) == (
        "--opts: MODEL.TEMPORAL_MODELLING_TYPE: unknown key (found 'None'); nearest key: MODEL.TEMPORAL_MODELING_TYPE"
    )


def test_wrong_type(refused):
    assert refused({"SOLVER.MAX_EPOCH": "many"}, status=2) == (
        "--opts: SOLVER.MAX_EPOCH: expected int, found 'many' (str)"
    )


def test_removed_key(refused):
    assert refused({"TRAIN.EWC_SET": True}, status=2) == (
        "TRAIN.EWC_SET: True is not supported, this key belongs to the EWC penalty, which the published code cannot "
        "run; allowed: False"
    )


def test_unknown_temporal_type(refused):
    assert refused({"MODEL.TEMPORAL_MODELING_TYPE": "stcross_atend"}, status=2) == (
        "MODEL.TEMPORAL_MODELING_TYPE: unknown value 'stcross_atend'; did you mean 'stcross_attend'? "
        f"allowed: {', '.join(map(repr, TEMPORAL_MODELING_TYPES))}"
    )


def test_config_file_missing(refused, tmp_path):
    path = tmp_path / "absent.yaml"
    assert refused({}, status=2, cfg=path) == f"--cfg: file not found: {path}"


def test_nothing_is_written_after_a_mistake_in_the_config(refused, tmp_path):
    refused({"SOLVER.MAX_EPOCH": 0}, status=2)
    assert not (tmp_path / "out").exists()


def test_more_devices_than_the_machine_has(refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert refused({"NUM_GPUS": 4}) == (
        "NUM_GPUS: is 4, but this machine has 0 CUDA devices; allowed: at most 1, or any number with DIST_BACKEND "
        "gloo on a machine without CUDA"
    )


def test_output_dir_not_writable(refused, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert refused({"OUTPUT_DIR": tmp_path / "file" / "out"}) == f"{tmp_path / 'file' / 'out'}: Not a directory"


# ---------------------------------------------------------------------------------------------------------- label map


@every_method
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the label file (No such file or directory)"),
        ('{"0": "a",', "not valid JSON (line 1: Expecting property name enclosed in double quotes)"),
        (
            '{"0": "a", "1": "b", "3": "c"}',
            'key "2" is missing; 3 classes need the keys "0" to "2", found \'3\' instead',
        ),
        ('["a", "b", "c"]', 'expected a JSON object {"0": "name", ...}, found list'),
    ],
    ids=["missing", "not JSON", "gap", "list"],
)
def test_label_map(refused, tmp_path, content, message):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert refused({"DATA.INDEX_LABEL_MAPPING_FILE": path}) == f"{path}: {message}"


@every_method
def test_no_label_map(refused):
    assert refused({"DATA.INDEX_LABEL_MAPPING_FILE": ""}) == (
        'DATA.INDEX_LABEL_MAPPING_FILE: is empty; give a JSON file {"0": "class name", ...} with every class'
    )


# --------------------------------------------------------------------------------------------------------- annotations


@every_method
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, ": cannot read the annotation file (No such file or directory)"),
        ("", ": the annotation file holds no video"),
        (
            "train0.mp4 0\n",
            ":1: DATA.PATH_LABEL_SEPARATOR ',' does not occur in 'train0.mp4 0'; the line looks separated by ' '",
        ),
        ("train0.mp4,0\n\ntrain1.avi,3\n", ":3: label 3 is outside the label set, allowed: 0 to 2"),
        ("train0.mp4,0\ntrain1.avi,left\n", ":2: expected an integer label, found 'left'"),
    ],
    ids=["missing", "empty", "separator", "label range", "label text"],
)
def test_annotations(refused, copied, rows, message):
    path = copied / "train.csv"
    path.unlink()
    if rows is not None:
        path.write_text(rows, encoding="utf-8")
    assert refused({"DATA.PATH_TO_DATA_DIR": copied}) == f"{path}{message}"


@every_method
def test_wrong_path_prefix(refused, dataset):
    assert refused({"DATA.PATH_PREFIX": "/nowhere"}) == (
        f"{dataset / 'train.csv'}:1: no such video /nowhere/train0.mp4 (DATA.PATH_PREFIX is '/nowhere')"
    )


def test_batch_larger_than_the_split(refused, dataset):
    message = refused({"TRAIN.BATCH_SIZE": 64})
    assert message.startswith("TRAIN.BATCH_SIZE: ")
    assert "12" in message


# ------------------------------------------------------------------------------------------------------- text features


def damaged_features(kind):
    features = torch.randn(3, 5, 32)
    if kind == "rows":
        return features[:2]
    if kind == "width":
        return features[..., :16].clone()
    if kind == "nan":
        features[1, 4, 0] = float("nan")
    if kind == "axes":
        return features[:, 0].clone()
    return features


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "{path}: DATA.TEXT_AUG_FEATURE_FILE not found"),
        ("rows", "DATA.TEXT_AUG_FEATURE_FILE: {path}: has 2 rows, but the label set has 3 classes"),
        (
            "width",
            "DATA.TEXT_AUG_FEATURE_FILE: {path}: features have width 16, but the model's joint space has 32",
        ),
        (
            "nan",
            "DATA.TEXT_AUG_FEATURE_FILE: {path}: feature [class, prompt] [1, 4] is zero, infinite or absent",
        ),
        (
            "axes",
            "DATA.TEXT_AUG_FEATURE_FILE: {path}: holds (3, 32) torch.float32; expected a float tensor "
            "[classes, prompts, width]",
        ),
    ],
)
def test_text_features(refused, tmp_path, kind, message):
    path = tmp_path / "text.pt"
    if kind != "missing":
        torch.save(damaged_features(kind), path)
    assert refused({"DATA.TEXT_AUG_FEATURE_FILE": path}) == message.format(path=path)


# ------------------------------------------------------------------------------------------------------------- weights


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


TEST_ONLY = {"TRAIN.ENABLE": False}


@every_method
def test_checkpoint_missing(refused, tmp_path):
    path = tmp_path / "absent.pyth"
    assert refused({**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": path}) == f"{path}: checkpoint not found"


@every_method
def test_not_a_checkpoint(refused, tmp_path):
    path = tmp_path / "notes.pyth"
    path.write_text("lecture notes", encoding="utf-8")
    message = refused({**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": path})
    assert message.startswith(f"{path}: checkpoint is damaged or holds objects that are unsafe to load (")


@every_method
def test_checkpoint_without_model_state(refused, tmp_path):
    path = tmp_path / "other.pyth"
    torch.save({"weights": torch.zeros(1)}, path)
    assert refused({**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": path}) == (
        f"{path}: not a checkpoint: found 1 entries such as weights; {KNOWN}"
    )


@every_method
def test_checkpoint_of_other_sizes(request, refused, tmp_path):
    sizes = ClipSizes(
        image_size=32, patch_size=8, vision_width=64, vision_layers=1, embed_dim=16, text_width=64, text_layers=1
    )
    path = tmp_path / "other.pt"
    torch.save(random_clip_state_dict(sizes, seed=0), path)
    message = refused({**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": path})
    start = f"{re.escape(str(path))}: weights do not fit the model: "
    if request.node.callspec.params["recipe"] == "clip_fsar":  # which is no CLIP with something added
        assert re.match(rf"{start}\d+ missing \(head\.scale, .*; \d+ unexpected \(model\.", message), message
        return
    assert re.match(rf"{start}\d+ missing \(model\.", message), message
    assert "2 of another shape (model.text_projection is (64, 16) instead of (64, 32), model.visual.proj" in message


@pytest.mark.parametrize("key", ["TEST.CHECKPOINT_FILE_PATH", "MODEL.CLIP_WEIGHTS", "DATA.TEXT_AUG_FEATURE_FILE"])
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_not_executed(refused, tmp_path, key, zipped):
    path, mark = tmp_path / "weights.pt", tmp_path / "executed"
    if zipped:
        torch.save({"model_state": Malicious(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"model_state": Malicious(mark)}))
    message = refused({**TEST_ONLY, key: path})
    assert str(path) in message
    assert "is damaged or holds objects that are unsafe to load" in message
    assert not mark.exists()


@every_method
def test_clip_weights_missing(refused, tmp_path):
    path = tmp_path / "absent.pt"
    assert refused({"MODEL.CLIP_WEIGHTS": path}) == (
        f"CLIP weights '{path}': no such file; allowed: a file or one of vitb32, vitb16, vitl14, rn50, ViT-B/32, "
        "ViT-B/16, ViT-L/14, RN50"
    )


@every_method
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_clip_weights_truncated(refused, tmp_path, tiny_weights, tiny_state, suffix):
    path = tmp_path / f"half{suffix}"
    if suffix == ".pt":
        path.write_bytes(tiny_weights.read_bytes()[:100_000])
    else:
        from safetensors.torch import save_file

        save_file(tiny_state, path)
        os.truncate(path, 100_000)
    message = refused({"MODEL.CLIP_WEIGHTS": path})
    assert message.startswith(f"{path}: ")
    assert "CLIP weights cannot be read" in message or "not a readable safetensors file" in message


@every_method
def test_clip_weights_of_something_else(refused, tmp_path):
    path = tmp_path / "resnet.pt"
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    assert refused({"MODEL.CLIP_WEIGHTS": path}) == (
        f"{path}: not a CLIP state dict: found 1 entries such as conv1.weight; {KNOWN}"
    )


def test_mask_that_does_not_divide_the_patches(refused):
    assert refused({"MODEL.MASK_STRIDE": "[1,3,3]"}) == (
        "MODEL.MASK_STRIDE: [1, 3, 3] does not divide the grid of 4 x 4 patches"
    )


# -------------------------------------------------------------------------------------------------------------- videos


OUTSIDE = {"DATA.ALLOW_ABSOLUTE_PATHS": True}
RAW_CLIP = {"VIFI_CLIP.N_CTX_VISION": 0, "VIFI_CLIP.N_CTX_TEXT": 0}  # learned vectors want weights


def break_videos(folder, split, *, bad, total):
    """Rewrite a split's csv so that the videos of some rows cannot be decoded; returns their paths."""
    lines = (folder / f"{split}.csv").read_text(encoding="utf-8").split()
    broken = []
    for row in range(total):
        if row in bad:
            path = folder / f"broken{row}.mp4"
            path.write_bytes(b"no video at all")
            # a path outside DATA.PATH_PREFIX, which takes OUTSIDE
            lines[row] = f"{path},{lines[row].split(',')[1]}"
            broken.append(path)
    (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return broken


@every_method
def test_one_undecodable_test_video_is_reported_not_replaced(net, copied):
    (broken,) = break_videos(copied, "test", bad={1}, total=5)
    out_dir = copied / "out"
    options = {**TEST_ONLY, **RAW_CLIP, "OUTPUT_DIR": out_dir, **OUTSIDE, "DATA.PATH_TO_DATA_DIR": copied}
    status, out, err = net(options)
    assert (status, err) == (0, "")
    results = json.loads((out_dir / "results.json").read_text(encoding="utf-8"))
    assert (results["num_videos"], results["num_scored"], results["coverage"]) == (5, 4, 0.8)
    (line,) = results["missing"]
    assert line.startswith(f"{broken}: ")
    assert f"not scored: {broken}: " in out


@pytest.mark.parametrize(
    ("name", "reason"),
    [("{folder}/a.mp4", "is an absolute path"), ("../{folder.name}/a.mp4", "climbs out with '..'")],
)
def test_a_list_does_not_lead_out_of_the_folder_of_the_videos(refused, copied, dataset, name, reason):
    name = name.format(folder=copied)
    (copied / "test.csv").write_text(f"{name},0\n", encoding="utf-8")
    assert refused({**TEST_ONLY, "DATA.PATH_TO_DATA_DIR": copied}) == (
        f"{copied / 'test.csv'}:1: the path {name!r} {reason}, away from the folder of the videos "
        f"{str(dataset / 'videos')!r}; allowed with DATA.ALLOW_ABSOLUTE_PATHS True"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TEST.SAVE_RESULTS_PATH", "../x.pkl", "'../x.pkl' climbs out with '..'; allowed: a name inside OUTPUT_DIR"),
        ("TEST.SAVE_RESULTS_PATH", "/tmp/x.pkl", "'/tmp/x.pkl' is an absolute path; allowed: a name inside OUTPUT_DIR"),
        ("TENSORBOARD.LOG_DIR", "a/../..", "'a/../..' climbs out with '..'; allowed: a name inside OUTPUT_DIR"),
        ("SPLITS.DATASET", "../ucf101", "'../ucf101' climbs out with '..'; allowed: a name inside SPLITS.LABEL_DB"),
        ("TASK", "../x", "'../x' begins the names of checkpoints; allowed: a name without separators"),
    ],
)
def test_names_of_files_stay_in_their_folder(refused, tmp_path, key, value, message):
    assert refused({key: value}, status=2) == f"{key}: {message}"
    assert not (tmp_path / "out").exists()


@every_method
def test_no_decodable_test_video(refused, copied):
    break_videos(copied, "test", bad=set(range(5)), total=5)
    assert refused({**TEST_ONLY, **RAW_CLIP, **OUTSIDE, "DATA.PATH_TO_DATA_DIR": copied}) == (
        f"{copied / 'test.csv'}: none of its 5 videos could be decoded"
    )


@every_method
@pytest.mark.parametrize("workers", [0, 2])
def test_training_replaces_and_names_a_bad_video(net, copied, json_lines, workers):
    (broken,) = break_videos(copied, "train", bad={4}, total=12)
    options = {
        "OUTPUT_DIR": copied / "out",
        "TEST.ENABLE": False,
        **OUTSIDE,
        "DATA.PATH_TO_DATA_DIR": copied,
        "DATA.MAX_BAD_FRACTION": 0.1,
        "DATA_LOADER.NUM_WORKERS": workers,
    }
    status, out, err = net(options)
    assert (status, err) == (0, "")
    assert out.count(f"replaced in training: {broken}: ") == 1
    assert [line["_type"] for line in json_lines(copied / "out" / "json_stats.log")] == [
        "train_epoch", "train_epoch", "val_epoch"
    ]  # fmt: skip


@every_method
def test_too_many_bad_training_videos(refused, copied):
    first, _ = break_videos(copied, "train", bad={4, 7}, total=12)
    message = refused({**OUTSIDE, "DATA.PATH_TO_DATA_DIR": copied, "DATA.MAX_BAD_FRACTION": 0.1})
    start = "DATA.MAX_BAD_FRACTION: 2 of 12 training videos cannot be decoded, allowed is a share of 0.1; the first: "
    assert message.startswith(f"{start}{first}: ")


def test_no_decodable_training_video(refused, copied):
    break_videos(copied, "train", bad=set(range(12)), total=12)
    message = refused({**OUTSIDE, "DATA.PATH_TO_DATA_DIR": copied})
    assert message.startswith("not one video of a batch can be decoded; the first: ")


@every_method
def test_divergence_stops_the_run(refused, tmp_path):
    options = {"SOLVER.BASE_LR": 1e30, "SOLVER.WARMUP_EPOCHS": 0.0, "SOLVER.CLIP_GRAD_L2NORM": "None"}
    message = refused({**options, "TRAIN.NONFINITE_BUDGET": 1})
    assert re.fullmatch(
        r"epoch 1, iteration 3, rank 0: the loss is nan \(videos (\d+, ){3}\d+ of the training list, from 0\); "
        r"TRAIN\.NONFINITE_BUDGET allows 1 such steps\. The batch is saved: python tools/replay_batch\.py "
        + re.escape(str(tmp_path / "out" / "nonfinite" / "epoch_00001_iteration_0000003.pt")),
        message,
    )
