"""CLIP in the layouts of other projects, written down independently of the code that reads them."""

import pytest
import torch


def hugging_face(state, sizes):
    """A CLIPModel's state dict: projections apart and transposed, position numbers as older versions saved them."""
    found = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(sizes.grid_size**2 + 1)[None],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(sizes.context_length)[None],
    }
    for part in ("weight", "bias"):
        found[f"vision_model.pre_layrnorm.{part}"] = state[f"visual.ln_pre.{part}"]
        found[f"vision_model.post_layernorm.{part}"] = state[f"visual.ln_post.{part}"]
        found[f"text_model.final_layer_norm.{part}"] = state[f"ln_final.{part}"]
        towers = (
            ("vision_model", "visual.transformer", sizes.vision_layers, sizes.vision_width),
            ("text_model", "transformer", sizes.text_layers, sizes.text_width),
        )
        for theirs, ours, layers, width in towers:
            for i in range(layers):
                to, block = f"{theirs}.encoder.layers.{i}", f"{ours}.resblocks.{i}"
                packed = state[f"{block}.attn.in_proj_{part}"]
                for place, letter in enumerate("qkv"):
                    rows = packed[place * width : (place + 1) * width].clone()
                    found[f"{to}.self_attn.{letter}_proj.{part}"] = rows
                found[f"{to}.self_attn.out_proj.{part}"] = state[f"{block}.attn.out_proj.{part}"]
                found[f"{to}.layer_norm1.{part}"] = state[f"{block}.ln_1.{part}"]
                found[f"{to}.layer_norm2.{part}"] = state[f"{block}.ln_2.{part}"]
                found[f"{to}.mlp.fc1.{part}"] = state[f"{block}.mlp.c_fc.{part}"]
                found[f"{to}.mlp.fc2.{part}"] = state[f"{block}.mlp.c_proj.{part}"]
    return found


def open_clip(state, sizes):
    """The plain CLIP class of open_clip, with the mask that older versions saved."""
    return {**state, "attn_mask": torch.zeros(sizes.context_length, sizes.context_length)}


def open_clip_training(state, sizes):
    """The same from a checkpoint of a training on several GPUs."""
    return {f"module.{name}": tensor for name, tensor in open_clip(state, sizes).items()}


def open_clip_custom_text(state, sizes):
    """CustomTextCLIP: the text tower is a module of its own."""
    shared = ("visual.", "logit_scale")
    found = {name if name.startswith(shared) else f"text.{name}": tensor for name, tensor in state.items()}
    return {**found, "text.attn_mask": torch.zeros(sizes.context_length, sizes.context_length)}


def ost(state, sizes):
    """OST: towers as encoders, from a training on several GPUs."""
    found = {}
    for name, tensor in state.items():
        if name.startswith("visual."):
            name = "image_encoder." + name[len("visual.") :]
        elif name != "logit_scale":
            name = "text_encoder." + name
        found["module." + name] = tensor
    return found


def vifi(state, sizes):
    """ViFi-CLIP: as OST, without the table of tokens, with the embedded texts of its training classes."""
    found = ost(state, sizes)
    del found["module.text_encoder.token_embedding.weight"]
    found["module.prompt_learner.complete_text_embeddings"] = torch.zeros(5, sizes.context_length, sizes.text_width)
    return found


def vifi_prompted(state, sizes):
    """ViFi-CLIP with prompts in all blocks of both towers, learned on a bridge model that stays as it is."""
    found = vifi(state, sizes)
    del found["module.prompt_learner.complete_text_embeddings"]
    return {
        **found,
        **{name: tensor.clone() for name, tensor in VIFI_PROMPTS.items()},
        "module.prompt_learner.token_prefix": torch.zeros(4, 1, 64),
        "module.prompt_learner.token_suffix": torch.zeros(4, 10, 64),
    }


VIFI_PROMPTS = {
    "module.prompt_learner.ctx": torch.linspace(0, 1, 5 * 64).view(5, 64),
    "module.text_encoder.transformer.resblocks.1.VPT_shallow": torch.linspace(1, 2, 5 * 64).view(5, 64),
    "module.image_encoder.VPT": torch.linspace(2, 3, 3 * 128).view(3, 128),
    "module.image_encoder.transformer.resblocks.1.VPT_shallow": torch.linspace(3, 4, 3 * 128).view(3, 128),
    "module.image_encoder.transformer.resblocks.2.VPT_shallow": torch.linspace(4, 5, 3 * 128).view(3, 128),
}
"""What that adds to the small CLIP: 5 words of width 64 in two blocks, 3 tokens of width 128 in three."""


def vifi_prompted_ours(state):
    """The same under the names of our checkpoints."""
    prompts = list(VIFI_PROMPTS.values())
    return {
        **{f"model.{name}": tensor for name, tensor in state.items()},
        "prompt_learner.ctx": prompts[0],
        "model.transformer.resblocks.1.VPT_shallow": prompts[1],
        "model.visual.VPT": prompts[2],
        "model.visual.transformer.resblocks.1.VPT_shallow": prompts[3],
        "model.visual.transformer.resblocks.2.VPT_shallow": prompts[4],
    }


TC_CLIP = {
    "local_global_bias_table": {1: torch.arange(4.0).view(2, 1, 2), 2: -torch.arange(4.0).view(2, 1, 2)},
    "ctx": torch.linspace(0, 1, 4 * 64).view(4, 64),
    "layer": {
        name: torch.full(shape, 0.5 + number)
        for number, (name, shape) in enumerate(
            {
                "attn.in_proj_weight": (192, 64),
                "attn.in_proj_bias": (192,),
                "attn.out_proj.weight": (64, 64),
                "attn.out_proj.bias": (64,),
                "ln_1.weight": (64,),
                "ln_1.bias": (64,),
                "ln_1_kv.weight": (64,),
                "ln_1_kv.bias": (64,),
                "ln_2.weight": (64,),
                "ln_2.bias": (64,),
                "mlp.c_fc.weight": (256, 64),
                "mlp.c_fc.bias": (256,),
                "mlp.c_proj.weight": (64, 256),
                "mlp.c_proj.bias": (64,),
            }.items()
        )
    },
}
"""What TC-CLIP adds to the small CLIP."""


def tc_clip(state, sizes):
    """TC-CLIP: as ViFi-CLIP, the image tower's projections apart, with what it adds."""
    found = vifi(state, sizes)
    del found["module.prompt_learner.complete_text_embeddings"]
    for layer in range(sizes.vision_layers):
        attention = f"module.image_encoder.transformer.resblocks.{layer}.attn"
        for part in ("weight", "bias"):
            packed, width = found.pop(f"{attention}.in_proj_{part}"), sizes.vision_width
            found[f"{attention}.q_proj.{part}"] = packed[:width].clone()
            found[f"{attention}.k_proj.{part}"] = packed[width : 2 * width].clone()
            found[f"{attention}.v_proj.{part}"] = packed[2 * width :].clone()
        if layer:
            found[f"{attention}.local_global_bias_table"] = TC_CLIP["local_global_bias_table"][layer]
    found |= {f"module.text_encoder.prompt_generation_layer.0.{name}": t for name, t in TC_CLIP["layer"].items()}
    return {
        **found,
        "module.prompt_learner.ctx": TC_CLIP["ctx"],
        "module.prompt_learner.token_prefix": torch.zeros(5, 1, 64),
        "module.prompt_learner.token_suffix": torch.zeros(5, 11, 64),
    }


def tc_clip_ours(state):
    """The same under the names of our checkpoints."""
    found = {f"model.{name}": tensor for name, tensor in state.items()}
    for layer, table in TC_CLIP["local_global_bias_table"].items():
        found[f"model.visual.transformer.resblocks.{layer}.attn.local_global_bias_table"] = table
    found |= {f"prompt_generation_layer.0.{name}": tensor for name, tensor in TC_CLIP["layer"].items()}
    return {**found, "prompt_learner.ctx": TC_CLIP["ctx"]}


def pyslowfast(state, sizes):
    """STDD's checkpoints: the teacher again, and the projector."""
    found = {f"model.{name}": tensor for name, tensor in state.items()}
    found |= {f"raw_model.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    return {**found, "projector_v.0.weight": torch.ones(2, 2), "projector_v.2.weight": torch.ones(2, 2)}


def pyslowfast_parallel(state, sizes):
    """The same with the prefix of DistributedDataParallel."""
    return {f"module.{name}": tensor for name, tensor in pyslowfast(state, sizes).items()}


WRITERS = {
    "openai": lambda state, sizes: {**state, "input_resolution": torch.tensor(sizes.image_size)},
    "open_clip": open_clip,
    "open_clip_training": open_clip_training,
    "open_clip_custom_text": open_clip_custom_text,
    "hf": hugging_face,
    "ost": ost,
    "vifi": vifi,
    "vifi_prompted": vifi_prompted,
    "tc_clip": tc_clip,
    "pyslowfast": pyslowfast,
    "pyslowfast_parallel": pyslowfast_parallel,
}


@pytest.fixture(scope="session")
def small_sizes(tiny_sizes):
    """Sizes without the full vocabulary; towers of different widths and depths, so that none is taken for the other."""
    import dataclasses

    return dataclasses.replace(
        tiny_sizes, vision_width=128, vision_layers=3, text_width=64, text_layers=2, vocab_size=50, context_length=16
    )


@pytest.fixture(scope="session")
def small_state(small_sizes):
    """Random weights in which no two entries are equal, some in half precision as in OpenAI's archives."""
    from slowfast.models.clip.weights import random_clip_state_dict

    generator = torch.Generator().manual_seed(7)
    state = random_clip_state_dict(small_sizes, seed=7)
    state = {name: t + 0.01 * torch.randn(t.shape, generator=generator) for name, t in state.items()}
    is_half = ("in_proj_weight", "out_proj.weight", "c_fc.weight", "c_proj.weight", "visual.proj", "text_projection")
    return {name: t.half() if name.endswith(is_half) else t for name, t in state.items()}


@pytest.fixture(scope="session")
def in_layout_of():
    """Writes a CLIP of any sizes in the layout of a name."""
    return lambda name, state, sizes: WRITERS[name](dict(state), sizes)


@pytest.fixture(scope="session")
def in_layout(small_state, small_sizes):
    """Writes the small CLIP in the layout of a name."""
    return lambda name: WRITERS[name](dict(small_state), small_sizes)


@pytest.fixture(scope="session")
def vifi_prompted_state(small_state):
    """A ViFi-CLIP with learned prompts under the names of our checkpoints."""
    return vifi_prompted_ours(small_state)


@pytest.fixture(scope="session")
def tc_clip_state(small_state):
    """A TC-CLIP under the names of our checkpoints."""
    return tc_clip_ours(small_state)
