"""An official checkpoint, through the command that converts it, gives the recorded scores."""

import importlib.util
import sys
from pathlib import Path

import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.engine.build import load_test_weights
from slowfast.methods.build import build_method

TOOLS = Path(__file__).resolve().parents[3] / "tools"


def official_state(method, entries, official):
    """The parameters of a method under the names and in the parts of a published checkpoint."""
    own = dict(method.named_parameters())
    state = {}
    for name, shape in entries.items():
        if name.endswith(("token_prefix", "token_suffix")):
            state[name] = torch.zeros(tuple(shape))  # of other classes, which a test must not look at
            continue
        ours, part = official.own_name(name)
        state[name] = official.pick(own[ours].detach(), part).clone()
    return state


def test_scores_of_a_converted_checkpoint(
    golden_tc_clip, build_tc, tc_batch, tc_weights, make_cfg, official, monkeypatch, tmp_path, assert_close
):
    filled = build_tc()
    source, target = tmp_path / "zero_shot_tc_clip.pth", tmp_path / "ours.safetensors"
    torch.save({"model": official_state(filled, golden_tc_clip["state_dict_keys"], official), "epoch": 9}, source)
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("convert_weights", TOOLS / "convert_weights.py")
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "convert_weights", tool)
    spec.loader.exec_module(tool)
    assert tool.main([str(source), str(target), "--clip", str(tc_weights)]) == 0

    cfg = make_cfg(**{"TEST.CUSTOM_LOAD": True, "TEST.CUSTOM_LOAD_FILE": str(target), "RNG_SEED": 5})
    method = build_method(cfg, LabelSet.from_names(golden_tc_clip["text"]["classes"]))
    load_test_weights(cfg, method)
    method.normalise = lambda frames: frames
    with torch.no_grad():
        assert_close(method.eval()(tc_batch()).logits, golden_tc_clip["base"]["eval"]["logits"])
