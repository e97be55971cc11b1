"""ViFi-CLIP's two stages: CLIP is tuned, then learned vectors are started on the tuned weights."""

import pytest
import torch

NONE = {"VIFI_CLIP.N_CTX_VISION": 0, "VIFI_CLIP.N_CTX_TEXT": 0}


@pytest.mark.parametrize("recipe", ["vifi_clip"], indirect=True)
def test_tuned_then_prompted(net, tmp_path):
    """A training starts vectors on weights without any; a test refuses such weights."""
    tuned, prompted = tmp_path / "tuned", tmp_path / "prompted"
    status, _, errors = net({"OUTPUT_DIR": tuned, "SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False, **NONE})
    assert status == 0, errors
    weights = tuned / "checkpoints" / "checkpoint_epoch_00001.pyth"

    start = {"TRAIN.CUSTOM_LOAD": True, "TRAIN.CUSTOM_LOAD_FILE": weights, "VIFI_CLIP.PROMPT_MODEL": True}
    status, _, errors = net({"OUTPUT_DIR": prompted, "SOLVER.MAX_EPOCH": 1, **start})
    assert status == 0, errors
    assert (prompted / "results.json").is_file()
    before = torch.load(weights)["model_state"]
    after = torch.load(prompted / "checkpoints" / "checkpoint_epoch_00001.pyth")["model_state"]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.rpartition(".")[2] for name in after.keys() - before.keys()} == {"VPT", "VPT_shallow", "ctx"}

    asked = {"TRAIN.ENABLE": False, "TEST.CUSTOM_LOAD": True, "TEST.CUSTOM_LOAD_FILE": weights}
    status, _, errors = net({"OUTPUT_DIR": tmp_path / "test", **asked})
    assert status != 0
    assert "weights do not fit the model: 4 missing (model.visual.VPT, " in errors
