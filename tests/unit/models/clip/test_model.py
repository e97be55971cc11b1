import torch

from slowfast.models.clip.model import CLIP
from slowfast.models.clip.weights import random_clip_state_dict


def test_names_are_those_of_openai(tiny_sizes):
    names = set(CLIP(tiny_sizes).state_dict())
    block = {
        "attn.in_proj_weight",
        "attn.in_proj_bias",
        "attn.out_proj.weight",
        "attn.out_proj.bias",
        "ln_1.weight",
        "ln_1.bias",
        "ln_2.weight",
        "ln_2.bias",
        "mlp.c_fc.weight",
        "mlp.c_fc.bias",
        "mlp.c_proj.weight",
        "mlp.c_proj.bias",
    }
    expected = {
        "positional_embedding",
        "text_projection",
        "logit_scale",
        "token_embedding.weight",
        "ln_final.weight",
        "ln_final.bias",
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.ln_pre.bias",
        "visual.ln_post.weight",
        "visual.ln_post.bias",
    }
    for tower in ("transformer", "visual.transformer"):
        expected |= {f"{tower}.resblocks.{layer}.{name}" for layer in range(2) for name in block}
    assert names == expected


def test_text_parameters_are_the_text_tower_only(tiny_sizes):
    clip = CLIP(tiny_sizes)
    frozen = {id(parameter) for parameter in clip.text_parameters()}
    rest = {name for name, parameter in clip.named_parameters() if id(parameter) not in frozen}
    assert "logit_scale" in rest
    assert rest - {"logit_scale"} == {name for name in rest if name.startswith("visual.")} != set()


def test_random_weights_fill_every_parameter_and_follow_the_seed(tiny_sizes):
    state = random_clip_state_dict(tiny_sizes, seed=1)
    own = CLIP(tiny_sizes).state_dict()
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in own.items()}
    again, other = random_clip_state_dict(tiny_sizes, seed=1), random_clip_state_dict(tiny_sizes, seed=2)
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not torch.equal(state["visual.proj"], other["visual.proj"])
