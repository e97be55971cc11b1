"""CLIP frame by frame with a text per class, which the recording has beside TC-CLIP."""

import pytest
import torch

from slowfast.models.build import build_clip
from slowfast.models.losses import soft_cross_entropy
from slowfast.models.similarity import pooled_logits, unit_norm
from slowfast.text.text_bank import spoken_name
from slowfast.text.tokenizer import Tokenizer

PRECISIONS = {"fp32": (torch.float32, ""), "fp64": (torch.float64, "64")}
TEMPLATES = {"vifi": "a photo of a {}.", "vanilla": "{}"}


def rename(official):
    """Their name without the encoder: our plain CLIP has the text tower at its root."""
    name = official.removeprefix("module.")
    name = name.replace("image_encoder.", "visual.", 1) if name.startswith("image_encoder.") else name
    return name.removeprefix("text_encoder."), ""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", TEMPLATES)
def test_plain_clip(golden_tc_clip, tc_clip_state, near, check_gradients, precision, case):
    dtype, end = PRECISIONS[precision]
    exact, recorded, inputs = bool(end), golden_tc_clip["plain_clip"][case], golden_tc_clip["inputs"]
    clip = build_clip(tc_clip_state).to(dtype)
    clip.token_embedding.weight.requires_grad = False
    frames = clip.encode_video(inputs["video"].to(dtype).transpose(1, 2))
    text = clip.encode_text(recorded["tokens"].long())
    near(frames, recorded["frame_features"])
    near(text, recorded["text_features"])
    logits = pooled_logits(unit_norm(frames.mean(dim=1)), unit_norm(text), clip.logit_scale.exp())
    near(logits, recorded[f"logits{end}"], exact=exact, relative=2e-5, absolute=0)
    loss = soft_cross_entropy(logits, inputs["soft_targets"])
    near(loss, recorded[f"loss{end}"], exact=exact, absolute=0)
    loss.backward()
    check_gradients(clip, recorded[f"grad_norms{end}"], dtype, rename=rename)


@pytest.mark.parametrize("case", TEMPLATES)
def test_names_and_tokens(golden_tc_clip, tc_clip_state, case):
    assert set(golden_tc_clip["plain_clip"]) == set(TEMPLATES)
    recorded, own = golden_tc_clip["plain_clip"][case], build_clip(tc_clip_state).state_dict()
    for name, shape in recorded["state_dict_keys"].items():
        if not name.endswith("prompt_learner.complete_text_embeddings"):
            assert own.pop(rename(name)[0]).shape == tuple(shape), name
    assert set(own) == {"token_embedding.weight"}
    for row, name in zip(recorded["tokens"], golden_tc_clip["text"]["classes"], strict=True):
        if "_" not in name:  # which this text keeps
            (tokens,) = Tokenizer()([TEMPLATES[case].format(spoken_name(name))])
            assert torch.equal(tokens[: len(row)], row.long())
