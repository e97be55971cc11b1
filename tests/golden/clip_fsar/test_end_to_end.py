"""The whole model, from images and tokens on, with a tiny CLIP. The shipped copy of the recording lacks it."""

import pytest
import torch

from slowfast.models.build import build_clip


@pytest.fixture
def recorded(golden_clip_fsar):
    if "end_to_end" not in golden_clip_fsar:
        pytest.skip("not in the shipped copy of the recording; see SLOWFAST_GOLDEN_DIR")
    return golden_clip_fsar["end_to_end"]


@pytest.fixture
def build(recorded, dense, build_head):
    """Builds the tiny CLIP and a head around its image tower, in a precision."""

    def make(training, dtype=torch.float32):
        clip = build_clip(dense(recorded["clip_sd"])).to(dtype)
        case = {
            "overrides": {"USE_CLASSIFICATION": True},
            "training": training,
            "objective": "both" if training else None,
        }
        return clip, build_head(case, dtype, backbone=clip.visual)

    return make


def encode(clip, images, frames, dtype):
    """Images video by video -> features of frames, (N, T, D)."""
    videos = images.to(dtype).unflatten(0, (-1, frames))  # (N, T, 3, H, W)
    return clip.encode_video(videos.transpose(1, 2))


@pytest.fixture
def episode(golden_clip_fsar, recorded, oracle):
    """Makes the recorded episode of features, in our order, and without the leaves of a graph."""
    found = golden_clip_fsar["episodes"][recorded["episode"]]
    support_order, query_order = (found[name].argsort(stable=True) for name in ("support_labels", "target_labels"))
    num_classes = len(found["support_labels"].unique())

    def make(support, query):
        return (
            support[support_order].unflatten(0, (1, num_classes, -1)),
            query[query_order][None],
            found["real_support_labels"][support_order].view(1, num_classes, -1)[..., 0],
        )

    return make, query_order.argsort()


def test_names(recorded, build):
    _, head = build(training=True)
    found = {f"head.{name}": tuple(value.shape) for name, value in head.state_dict().items()}
    assert found == {name: tuple(shape) for name, shape in recorded["state_dict_keys"].items()}


def test_training(golden_clip_fsar, recorded, build, episode, precision, near, near_norms):
    case, meta = recorded["train"], golden_clip_fsar["meta"]
    clip, head = build(training=True, dtype=precision.dtype)
    frames = meta["dims"]["T"]
    support, query = (
        encode(clip, recorded[name], frames, precision.dtype) for name in ("support_images", "target_images")
    )
    near(support.flatten(0, 1), case["frame_features_support"], 2e-5)
    near(query.flatten(0, 1), case["frame_features_query"], 2e-5)
    with torch.no_grad():
        texts = clip.encode_text(golden_clip_fsar["text"]["tokens_train"].long())
    near(texts, precision.of(case, "text_train"), precision.values)
    near(
        head.video_text_logits(torch.cat((support, query)), texts), precision.of(case, "class_logits"), precision.values
    )

    arrange, back = episode
    logits, terms = head.losses(*arrange(support, query), texts)
    near(logits[0][back], precision.of(case, "logits"), precision.values)
    loss = sum(terms.values()) / meta["batch_size"]
    near(loss, precision.of(case, "loss"), precision.values)
    loss.backward()
    loose = type(precision)(**{**vars(precision), "gradients": precision.gradients * (1 if precision.exact else 2)})
    near_norms(dict(head.named_parameters()), precision.of(case, "grad_norms"), case["grad_none"], loose)


def test_evaluation(golden_clip_fsar, recorded, build, episode, precision, near):
    case = recorded["eval"]
    clip, head = build(training=False, dtype=precision.dtype)
    frames = golden_clip_fsar["meta"]["dims"]["T"]
    arrange, back = episode
    with torch.no_grad():
        support, query = (
            encode(clip, recorded[name], frames, precision.dtype) for name in ("support_images", "target_images")
        )
        texts = clip.encode_text(golden_clip_fsar["text"]["tokens_test"].long())
        support_5d, query_4d, class_number = arrange(support, query)
        logits = head.episode_logits(support_5d, query_4d, texts[class_number])
    near(support.flatten(0, 1), case["frame_features_support"], 2e-5)
    near(query.flatten(0, 1), case["frame_features_query"], 2e-5)
    near(texts, precision.of(case, "text_test"), precision.values)
    near(logits[0][back], precision.of(case, "logits"), precision.values)
