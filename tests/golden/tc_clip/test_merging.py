"""Merging of tokens alone, and its schedules."""

import torch

from slowfast.methods.tc_clip.token_merge import (
    group_means,
    group_sizes,
    merge_groups,
    merge_schedule,
    steps_by_layer,
)


def test_merging(golden_tc_clip, near):
    assert golden_tc_clip["token_merging"]
    for case in golden_tc_clip["token_merging"]:
        tokens = case["tokens"].double()
        removals = merge_schedule(tokens.shape[1], case["target"], case["r"])
        assert removals == case["removed"]
        assert len(removals) == len(case["counts"]) == len(case["sizes"])
        for steps, (count, sizes) in enumerate(zip(case["counts"], case["sizes"], strict=True), start=1):
            group = merge_groups(tokens, removals[:steps])
            assert int(group.max()) + 1 == count == tokens.shape[1] - sum(removals[:steps])
            assert torch.equal(group_sizes(group, count), sizes.long())
        group = merge_groups(tokens, removals)
        count = tokens.shape[1] - sum(removals)
        near(group_means(tokens, group, count), case["merged"], exact=True)
        if case["membership"] is None:
            assert removals == []
            assert torch.equal(group, torch.arange(count).expand_as(group))
        else:
            assert torch.equal(torch.arange(count)[:, None] == group[:, None], case["membership"])


def test_merging_in_single_precision_chooses_the_same(golden_tc_clip, near):
    for case in golden_tc_clip["token_merging"]:
        tokens = case["tokens"].float()
        removals = merge_schedule(tokens.shape[1], case["target"], case["r"])
        group = merge_groups(tokens, removals)
        near(group_means(tokens, group, tokens.shape[1] - sum(removals)), case["merged"])


def test_schedules(golden_tc_clip):
    recorded = golden_tc_clip["schedules"]
    for case in recorded["removals"]:
        removals = merge_schedule(case["start"], case["final"], case["r"])
        assert removals == case["removed"]
        assert [case["start"] - sum(removals[: i + 1]) for i in range(len(removals))] == case["counts"]
    for case in recorded["per_layer_r"]:
        assert steps_by_layer(case["layers"], case["r"], case["inflection"]) == case["list"]
