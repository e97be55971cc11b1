import re

import pytest
import torch

from slowfast.methods.build import build_method
from slowfast.models.temporal.st_cross import SpaceTimeCrossBlock
from slowfast.text.text_bank import mean_features, template_bank
from slowfast.text.tokenizer import Tokenizer


def test_keys_reach_the_block(tiny_cfg, tiny_labels):
    cfg = tiny_cfg(
        **{
            "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
            "MODEL.CHANNEL_FOLD": 32,
            "MODEL.TEMPORAL_SCALE": [1, 2],
            "MODEL.STCROSS_MLP_INPUT": "merged",
            "MODEL.TEMPORAL_SHUFFLE_EVAL": True,
        }
    )
    for block in build_method(cfg, tiny_labels).model.visual.transformer.resblocks:
        assert isinstance(block, SpaceTimeCrossBlock)
        options = block.options
        assert (options.channel_fold, list(options.temporal_scale)) == (32, [1, 2])
        assert (options.stcross_mlp_input, options.temporal_shuffle_eval) == ("merged", True)


def test_default_text_is_made_from_templates(tiny_cfg, tiny_labels, build_tiny):
    method = build_method(tiny_cfg(), tiny_labels)
    tokens = template_bank(tiny_labels.names, tokenizer=Tokenizer()).tokens
    expected = mean_features(tokens, encode=build_tiny().encode_text)
    assert torch.allclose(method.text(method.model).features, expected, atol=1e-6)


def test_prompt_file(tiny_cfg, tiny_labels, tmp_path, make_batch):
    features = torch.randn(3, 5, 32)
    torch.save(features, tmp_path / "features.pt")
    cfg = tiny_cfg(**{"DATA.TEXT_AUG": True, "DATA.TEXT_AUG_FEATURE_FILE": str(tmp_path / "features.pt")})
    method = build_method(cfg, tiny_labels)
    assert torch.allclose(method.text(method.model).features, features / features.norm(dim=-1, keepdim=True))
    assert method.eval()(make_batch()).logits.shape == (2, 3)


def test_prompt_file_of_another_dataset(tiny_cfg, tiny_labels, tmp_path):
    path = tmp_path / "features.pt"
    torch.save(torch.randn(400, 5, 32), path)
    cfg = tiny_cfg(**{"DATA.TEXT_AUG": True, "DATA.TEXT_AUG_FEATURE_FILE": str(path)})
    message = f"DATA.TEXT_AUG_FEATURE_FILE: {path}: has 400 rows, but the label set has 3 classes"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_method(cfg, tiny_labels)


@pytest.mark.parametrize(("mode", "has_teacher"), [("intended", True), ("published", False)])
def test_teacher_is_plain_clip_with_the_initial_weights(tiny_cfg, tiny_labels, tiny_state, mode, has_teacher):
    keys = {
        "MODEL.KEEP_RAW_MODEL": True,
        "MODEL.RAW_MODEL_DISTILLATION": True,
        "MODEL.DISTILLATION_MODE": mode,
        "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
    }
    teacher = build_method(tiny_cfg(**keys), tiny_labels).raw_model
    assert (teacher is not None) is has_teacher
    if teacher is not None:
        assert all(torch.equal(tensor, tiny_state[name]) for name, tensor in teacher.state_dict().items())
        assert not any(isinstance(module, SpaceTimeCrossBlock) for module in teacher.modules())


def test_compile_wraps_the_towers_without_changing_names(tiny_cfg, tiny_labels):
    plain, compiled = (
        build_method(tiny_cfg(**{"TRAIN.COMPILE": on}), tiny_labels).checkpoint_state() for on in (False, True)
    )
    assert list(plain) == list(compiled)


def test_compiled_towers_take_any_number_of_videos(tiny_cfg, tiny_labels, make_batch, monkeypatch):
    """Of both towers, in training, in the validation between its steps, and in the ensemble of a test."""
    compile_module, programs = torch.nn.Module.compile, []

    def count(graph, inputs):
        programs.append(graph)
        return graph.forward

    def with_fast_backend(module, **options):
        assert options == {"fullgraph": True, "dynamic": False, "options": {"fallback_random": True}}
        compile_module(module, backend=count, fullgraph=True, dynamic=False)  # the default backend takes minutes here

    monkeypatch.setattr(torch.nn.Module, "compile", with_fast_backend)
    torch._dynamo.reset()
    keys = {
        "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
        "MODEL.KEEP_RAW_MODEL": True,
        "MODEL.RAW_MODEL_DISTILLATION": True,
        "MODEL.ENSEMBLE_PRED": True,
        "MODEL.ENSEMBLE_RAWMODEL_RATIO": 0.5,
    }
    eager, method = (build_method(tiny_cfg(**keys, **{"TRAIN.COMPILE": on}), tiny_labels) for on in (False, True))
    eager.load_state_dict(method.state_dict())  # the projector starts at random
    for mode, found in ((True, 4), (False, 8), (True, 8)):
        method.train(mode)
        eager.train(mode)
        for size in (3, 2, 1, 3):
            batch = make_batch(size)
            outputs = []
            for built in (method, eager):
                torch.manual_seed(size)
                with torch.set_grad_enabled(mode), torch.inference_mode(not mode):
                    outputs.append(built(batch))
            torch.testing.assert_close(outputs[0].logits, outputs[1].logits)
            torch.testing.assert_close(outputs[0].losses, outputs[1].losses)
        assert len(programs) == found
