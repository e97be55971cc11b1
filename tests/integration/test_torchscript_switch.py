"""A TorchScript archive that OpenAI did not publish takes a switch, wherever raw CLIP is read."""

import hashlib
import importlib.util
import json
import warnings

import pytest
import torch

from slowfast.models.clip.model import CLIP

TEST_ONLY = {"TRAIN.ENABLE": False, "TEST.ENABLE": True}
ALLOWED = {"MODEL.CLIP_ALLOW_TORCHSCRIPT": True}
RUNS = "MODEL.CLIP_ALLOW_TORCHSCRIPT True (runs), --allow-torchscript (tools) or allow_torchscript=True (load_model)"


@pytest.fixture(scope="module")
def archive(tiny_state, tiny_sizes, tmp_path_factory):
    class Traceable(CLIP):
        def forward(self, tokens):
            return self.encode_text(tokens)

    clip = Traceable(tiny_sizes)
    clip.load_state_dict(tiny_state)
    path = tmp_path_factory.mktemp("archive") / "tiny.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(clip, torch.tensor([[49406, 5, 49407]]), check_trace=False).save(str(path))
    return path


def refusal(archive, flag):
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    return (
        f"{archive}: TorchScript archive with sha256 {found}, which is none of the published CLIPs; allowed with {flag}"
    )


@pytest.fixture
def checkpoint(tiny_state, tmp_path):
    """A folder with the weights of one epoch."""
    path = tmp_path / "checkpoints" / "checkpoint_epoch_00001.pyth"
    path.parent.mkdir()
    torch.save({"model_state": {f"model.{name}": value for name, value in tiny_state.items()}}, path)
    return path


def test_initial_weights(net, archive, tiny_weights, tmp_path):
    status, _, err = net({**TEST_ONLY, "OUTPUT_DIR": tmp_path / "none", "MODEL.CLIP_WEIGHTS": archive})
    assert (status, err) == (1, f"error: {refusal(archive, RUNS)}\n")
    results = []
    for name, options in (("archive", {"MODEL.CLIP_WEIGHTS": archive, **ALLOWED}), ("plain", {})):
        status, _, err = net({**TEST_ONLY, "OUTPUT_DIR": tmp_path / name, **options})
        assert (status, err) == (0, "")
        results.append(json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8")))
    assert results[0]["model_sha256"] == results[1]["model_sha256"]


def test_patching(net, archive, checkpoint, tmp_path):
    options = {
        **TEST_ONLY,
        "OUTPUT_DIR": tmp_path / "out",
        "TEST.CUSTOM_LOAD": True,
        "TEST.CUSTOM_LOAD_FILE": checkpoint,
    }
    options |= {"TEST.PATCHING_MODEL": True, "TEST.CLIP_ORI_PATH": archive, "MODEL.TEMPORAL_MODELING_TYPE": "None"}
    status, _, err = net(options)
    assert (status, err) == (1, f"error: TEST.CLIP_ORI_PATH: {refusal(archive, RUNS)}\n")
    assert net({**options, **ALLOWED})[0] == 0


def test_interpolated_weights(net, archive, tmp_path):
    options = {"TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1, "OUTPUT_DIR": tmp_path / "out"}
    options |= {"TRAIN.LINEAR_CONNECT_CLIMB": True, "TRAIN.CLIP_ORI_PATH": archive}
    status, _, err = net(options)
    assert (status, err) == (1, f"error: TRAIN.CLIP_ORI_PATH: {refusal(archive, RUNS)}\n")
    assert net({**options, **ALLOWED})[0] == 0


def test_as_a_checkpoint(net, call_tool, archive, tmp_path, capfd):
    options = {**TEST_ONLY, "OUTPUT_DIR": tmp_path / "out", "TEST.CHECKPOINT_FILE_PATH": archive}
    status, _, err = net(options)
    assert (status, err) == (1, f"error: {refusal(archive, RUNS)}\n")
    assert net({**options, **ALLOWED})[0] == 0
    target = tmp_path / "clip.safetensors"
    assert call_tool("convert_weights", [archive, target]) == 1
    assert capfd.readouterr().err == f"error: {refusal(archive, '--allow-torchscript')}\n"
    assert call_tool("convert_weights", [archive, target, "--allow-torchscript"]) == 0
    assert net({**options, "TEST.CHECKPOINT_FILE_PATH": target, "MODEL.CLIP_WEIGHTS": target})[0] == 0


def test_averaging(repository, archive, checkpoint, tmp_path, capfd):
    spec = importlib.util.spec_from_file_location("weight_average_tool", repository / "weight_average_tool.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = ["--source-dir", str(checkpoint.parent), "--output-dir", str(tmp_path), "--methods", "swa"]
    words += ["--start", "0", "--end", "1", "--clip", str(archive)]
    assert tool.main(words) == 1
    assert capfd.readouterr().err == f"error: {refusal(archive, RUNS)}\n"
    assert tool.main([*words, "--allow-torchscript"]) == 0
    content = torch.load(tmp_path / "swa_0_1.pth", weights_only=True)
    assert content["clip_activation"] == "quick_gelu"
