"""Tokens, prompts, and the text tower with and without a video."""

import re

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.methods.tc_clip.build import first_words, text_bank
from slowfast.methods.tc_clip.config import TcClipConfig


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def dtype(request):
    return request.param


@pytest.fixture
def observe(tc_batch):
    """Runs a method and keeps states between blocks, words before and behind prompt generation, and features."""

    def run(method, dtype):
        clip, seen = method.model, {"blocks": [], "words": [], "prompted": []}
        apply = clip.transformer.run

        def keep(block, function, x):
            seen["blocks"].append(apply(block, function, x))
            return seen["blocks"][-1]

        clip.transformer.run = keep
        hooks = [clip.ln_final.register_forward_hook(lambda *call: seen.update(ended=call[2]))]
        for layer in method.text.prompt_generation_layer:
            hooks.append(layer.register_forward_hook(lambda _, inputs, output: seen["words"].append(inputs[0])))
            hooks.append(layer.register_forward_hook(lambda _, inputs, output: seen["prompted"].append(output)))
        with torch.no_grad():
            method.eval()(tc_batch())
        del clip.transformer.run
        for hook in hooks:
            hook.remove()
        return seen | {"features": (seen["ended"] @ clip.text_projection).detach()}

    return run


def per_class(words, num_videos, num_classes):
    """Words that all classes share, (1 or B, n, D) -> (B, n, K, D), as recorded."""
    return words[:, :, None].expand(num_videos, -1, num_classes, -1)


def test_tokens(golden_tc_clip, make_cfg, build_tc):
    base, num_words = golden_tc_clip["base"], golden_tc_clip["meta"]["n_ctx"]
    labels = LabelSet.from_names(golden_tc_clip["text"]["classes"])
    tokens = text_bank(TcClipConfig.from_cfg(make_cfg()), labels).tokens[:, 0]
    length = base["tokens"].shape[1]
    assert torch.equal(tokens[:, :length], base["tokens"].long())
    assert not tokens[:, length:].any()
    kept = build_tc().text.tokens
    assert torch.equal(kept, tokens[:, : kept.shape[1]])
    # the start, the words, the name, the full stop, the end
    assert (kept.argmax(dim=-1) - num_words - 2).tolist() == base["name_lengths"]


def test_prompts_of_the_base(golden_tc_clip, build_tc, observe, dtype, near):
    base = golden_tc_clip["base"]
    num_videos, num_classes = base["eval"]["logits"].shape
    seen = observe(build_tc("", dtype), dtype)
    (words,), (prompted,) = seen["words"], seen["prompted"]
    near(per_class(words, 1, num_classes)[0], base["vp_in"])
    near(per_class(prompted, num_videos, num_classes), base["vp_out"])
    near(seen["features"], base["text_features"])


def test_text_blocks(golden_tc_clip, build_tc, observe, dtype, near):
    recorded = golden_tc_clip["base"]["text_blocks_video0_first8"]
    method = build_tc("", dtype)
    *blocks, last = observe(method, dtype)["blocks"]
    num_classes, length = method.text.tokens.shape
    assert len(blocks) + 1 == len(recorded)
    for prompts, expected in zip(blocks, recorded, strict=False):
        start = prompts.start[0, :, None].expand(-1, num_classes, -1)
        found = torch.cat((start, prompts.rest[0].transpose(0, 1)))  # (position, class, channel)
        near(found[..., : expected.shape[-1]], expected[:length])
    ends = method.text.tokens.argmax(dim=-1)
    expected = recorded[-1][ends, torch.arange(num_classes)]
    near(last[0, :, : expected.shape[-1]], expected)


def test_text_of_variants(golden_tc_clip, tc_variant, build_tc, observe, dtype, near):
    case = golden_tc_clip["variants"][tc_variant]
    num_videos, num_classes = case["logits"].shape
    seen = observe(build_tc(tc_variant, dtype), dtype)
    near(seen["features"].expand(num_videos, -1, -1), case["text_features"])
    for ours, name in (("words", "vp_in"), ("prompted", "vp_out")):
        if name in case:  # recorded for some variants only: (video, level, word, class, channel)
            found = torch.stack([per_class(words, num_videos, num_classes) for words in seen[ours]], dim=1)
            near(found, case[name])


def test_one_variant_records_its_prompts(golden_tc_clip):
    assert any("vp_in" in case and "vp_out" in case for case in golden_tc_clip["variants"].values())


def test_prompt_texts(golden_tc_clip, make_cfg, tc_clip_state, build_tc):
    clip = build_tc().model
    width = tc_clip_state["positional_embedding"].shape[1]
    assert golden_tc_clip["prompt_tokens"]
    for key, case in golden_tc_clip["prompt_tokens"].items():
        count, words, capitals = re.fullmatch(r"n(\d+)\|(.*)\|(split|verbatim)", key).groups()
        cfg = make_cfg({"n_ctx": int(count), "ctx_init": words}, **{"TC_CLIP.SPLIT_CAPITALS": capitals == "split"})
        config = TcClipConfig.from_cfg(cfg)
        tokens = text_bank(config, LabelSet.from_names(golden_tc_clip["text"]["classes"])).tokens[:, 0]
        length = case["tokens"].shape[1]
        assert torch.equal(tokens[:, :length], case["tokens"].long()), key
        assert not tokens[:, length:].any()
        assert first_words(config, clip).shape == tuple(case["ctx_shape"])
        assert tuple(case["prefix_shape"]) == (len(tokens), 1, width)
        assert tuple(case["suffix_shape"]) == (len(tokens), length - 1 - int(count), width)
        shown = case["prompt_prefix"].split()
        assert len(shown) == int(count)
        assert shown[: len(config.words.split())] == config.words.split()


def test_copies_at_the_start(golden_tc_clip, build_tc, official):
    recorded = golden_tc_clip["init_copies"]
    sources = {int(re.search(r"resblocks\.(\d+)\.", source)[1]) for source in recorded.values()}
    levels = sorted(level + 1 for level in sources)
    method = build_tc("vp_from_clip", **{"TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL": levels})
    own = dict(method.named_parameters())
    for name, source in recorded.items():
        assert torch.equal(own[official.own_name(name)[0]], own[official.own_name(source)[0]]), name
    ours = {name for name in own if name.startswith("text.prompt_generation_layer.")}
    assert ours == {official.own_name(name)[0] for name in recorded}
