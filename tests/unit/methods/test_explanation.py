"""What a view of a clip must be."""

import re

import pytest
import torch

from slowfast.methods.explanation import Explanation, MatchView, PatchView


def patch_view(num_frames=4, *, layer=1):
    off = torch.zeros(num_frames, 2, 2, dtype=torch.bool)
    return PatchView(layer=layer, attention=torch.zeros(num_frames, 2, 2), chosen=off, what="")


def match_view(num_frames=4, **changed):
    fields = {
        "kind": "spatial",
        "class_name": "archery",
        "texts": ("a bow", "an arrow"),
        "plan": torch.full((num_frames, 2), 0.5 / num_frames),
        "cosines": torch.zeros(num_frames, 2),
    }
    return MatchView(**{**fields, **changed})


def test_a_plan_of_equal_columns_is_taken():
    uneven = torch.tensor([[0.4, 0.1], [0.1, 0.4]])
    assert match_view(2, plan=uneven).plan is uneven
    assert match_view(1).texts == ("a bow", "an arrow")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"plan": torch.full((4, 2, 1), 0.125)}, "plan must be (T, N), found (4, 2, 1)"),
        ({"plan": torch.zeros(0, 2), "cosines": torch.zeros(0, 2)}, "plan must be (T, N), found (0, 2)"),
        ({"texts": ("a bow",)}, "1 descriptors, but plan is (4, 2)"),
        ({"plan": torch.full((4, 2), 0.125).double()}, "plan: dtype torch.float64"),
        ({"cosines": torch.zeros(2, 4)}, "cosines must be (4, 2), found (2, 4)"),
        ({"cosines": torch.zeros(4, 2).half()}, "cosines: dtype torch.float16"),
        ({"plan": torch.tensor([[0.6, -0.1], [-0.1, 0.6]]), "cosines": torch.zeros(2, 2)}, "plan: negative"),
        ({"plan": torch.full((4, 2), float("nan"))}, "plan: negative or not a number"),
        ({"plan": torch.full((4, 2), 0.25)}, "plan: columns sum to [1.0, 1.0]"),
        ({"plan": torch.tensor([[0.6, 0.4]]), "cosines": torch.zeros(1, 2)}, "plan: columns sum to [0.6"),
        ({"plan": torch.tensor([[0.5, 0.5], [0, 0]]), "cosines": torch.zeros(2, 2)}, "plan: a frame without mass"),
    ],
)
def test_what_is_no_plan(changed, message):
    with pytest.raises(AssertionError, match=f"^{re.escape(message)}"):
        match_view(**changed)


def test_kinds_of_views_go_together():
    both = (match_view(), match_view(kind="temporal"))
    assert Explanation(matches=both).patches == ()
    assert Explanation((patch_view(), patch_view(layer=2)), both).matches == both
    assert Explanation() == Explanation((), ())


@pytest.mark.parametrize(
    ("patches", "matches", "message"),
    [
        ((2, 1), (), "blocks out of order: [2, 1]"),
        ((), (match_view(), match_view()), "matches of one kind twice: ['spatial', 'spatial']"),
        ((), (match_view(), match_view(kind="temporal", class_name="golf")), "matches of different classes"),
        ((), (match_view(), match_view(3, kind="temporal")), "views of clips of [3, 4] frames"),
        ((1,), (match_view(3),), "views of clips of [3, 4] frames"),
    ],
)
def test_views_that_do_not_belong_together(patches, matches, message):
    with pytest.raises(AssertionError, match=f"^{re.escape(message)}$"):
        Explanation(tuple(patch_view(layer=layer) for layer in patches), matches)
