"""A model of the published text width, whose weights and input are formulas."""

import zlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slowfast.methods.tc_clip.context_tokens import ContextOptions, ContextTower, Tokens
from slowfast.methods.tc_clip.method import TCCLIP
from slowfast.methods.tc_clip.prompts import PromptedText
from slowfast.methods.tc_clip.token_merge import merge_schedule
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import cross_entropy
from slowfast.models.similarity import pooled_logits, unit_norm
from slowfast.text.text_bank import TextBank


def weight(name, shape, salt):
    z = torch.from_numpy(
        np.asarray(np.random.RandomState(zlib.crc32((salt + name).encode())).standard_normal(tuple(shape)))
    )
    if name == "logit_scale":
        return torch.tensor(20.0, dtype=torch.float64).log()
    if name.endswith("bias_table"):
        return 0.5 * z
    if ".ln_" in name:
        return 1 + 0.1 * z if name.endswith("weight") else 0.05 * z
    if name.endswith("bias"):
        return 0.02 * z
    if name.startswith("prompt_learner.") or "embedding" in name:
        return 0.3 * z
    fan_in = shape[0] if name in ("image_encoder.proj", "text_encoder.text_projection") else z.numel() / shape[0]
    return z / fan_in**0.5


@pytest.fixture(scope="module")
def case(golden_tc_clip):
    return golden_tc_clip["formula_512"]


@pytest.fixture(scope="module")
def build_formula(case, official):
    """Builds the method in a precision.

    Every class has a start-of-text vector of its own, so a class is a label set of its own: token number p of class c
    is c * (length) + p, up to the end-of-text token.
    """
    weights = {name: weight(name, shape, case["salt"]) for name, shape in case["keys"].items()}
    dims, length = case["dims"], case["eot_index"] + 1
    classes = torch.cat((weights["prompt_learner.token_prefix"], weights["prompt_learner.token_suffix"]), dim=1)
    sizes = ClipSizes(
        image_size=dims["PATCH"] * dims["GRID"],
        patch_size=dims["PATCH"],
        vision_width=dims["VW"],
        vision_layers=dims["VL"],
        embed_dim=dims["ED"],
        text_width=dims["TW"],
        text_layers=dims["TL"],
        vocab_size=case["classes"] * length,
        context_length=len(weights["text_encoder.positional_embedding"]),
    )

    def build(dtype):
        options = ContextOptions(
            num_tokens=case["context_token_k"], seed_share=case["seed_token_a"], merge_step=case["tome_r"]
        )
        clip = CLIP(sizes, visual=ContextTower(sizes, options, levels=(sizes.vision_layers - 1,)))
        text = PromptedText(sizes, words=torch.empty(case["n_ctx"], dims["TW"]), levels=(sizes.text_layers - 1,))
        text.start_layers(clip, copy=True)
        method = TCCLIP(clip, text=text, loss=cross_entropy, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3).to(dtype)
        own = dict(method.named_parameters())
        for name, value in weights.items():
            ours, part = official.own_name(name)
            if ours in own:
                official.pick(own[ours].data, part).copy_(value)
            else:
                assert name in ("prompt_learner.token_prefix", "prompt_learner.token_suffix")
        table = own["model.token_embedding.weight"].data.view(case["classes"], length, -1)
        table[:, 0] = classes[:, 0].to(dtype)
        rest = 1 + case["n_ctx"]
        table[:, rest:] = classes[:, 1 : 1 + length - rest].to(dtype)
        return method

    return build


def score(method, case, frames):
    length = case["eot_index"] + 1
    tokens = method.model.visual(frames)
    features = []
    for number in range(case["classes"]):
        method.text.set_bank(TextBank(tokens=(number * length + torch.arange(length))[None, None]))
        features.append(method.text(method.model, tokens.context))
    video = unit_norm(tokens.frames.mean(dim=1))
    return pooled_logits(video, torch.cat(features, dim=1), method.model.logit_scale.exp())


def make_frames(case):
    side = case["dims"]["PATCH"] * case["dims"]["GRID"]
    shape = (len(case["labels"]), case["T"], 3, side, side)
    video = np.random.RandomState(case["input_seed"]).standard_normal(shape)
    return torch.from_numpy(video).transpose(1, 2)


def test_in_double_precision(case, build_formula, check_gradients, near):
    expected, frames = case["float64"], make_frames(case)
    method = build_formula(torch.float64).train()
    logits = score(method, case, frames)
    near(logits, expected["logits"], exact=True)
    loss = F.cross_entropy(logits, torch.tensor(case["labels"]))
    near(loss, expected["cross_entropy"], exact=True)
    loss.backward()
    check_gradients(_WithoutTable(method), expected["grad_norms"], torch.float64)
    tower = method.model.visual
    tokens = Tokens(tower.embed(frames), None)
    for number, block in enumerate(tower.transformer.resblocks):
        with torch.no_grad():
            tokens, seeds = block.run(tokens)
        assert torch.equal(seeds.patches, expected["seed_index"][number].long())
        removed = merge_schedule(seeds.group.shape[1], case["context_token_k"], block.merge_step)
        assert removed == expected["removed"][number]
        first = expected["context_first8"][number]
        near(tokens.context[..., : first.shape[-1]], first, exact=True)
        near(tokens.context.sum(), expected["context_sum"][number], exact=True)
        near(tokens.frames.sum(), expected["frame_sum"][number], exact=True)


class _WithoutTable:
    """A method whose table of tokens is no parameter."""

    def __init__(self, method):
        self.method = method

    def named_parameters(self):
        return self.method.trainable_parameters()


def test_in_single_precision(case, build_formula, near):
    expected, frames = case["float32"], make_frames(case).float()
    method = build_formula(torch.float32).eval()
    with torch.no_grad():
        logits = score(method, case, frames)
    near(logits, expected["logits"], relative=2e-5, absolute=0)
    near(F.cross_entropy(logits, torch.tensor(case["labels"])), expected["cross_entropy"], absolute=0)
    for seeds, recorded in zip(method.model.visual.trace(frames), expected["seed_index"], strict=True):
        assert torch.equal(seeds.patches, recorded.long())
