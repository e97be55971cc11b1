import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.episodes import EpisodeDraws, plan_episodes
from slowfast.datasets.types import EpisodeSpec, collate
from slowfast.engine import episodes as module
from slowfast.engine.episodes import (
    ClipMemo,
    EpisodeCounts,
    complete_episodes,
    encode_clips,
    evaluate_episodes,
    feature_size,
    score_episodes,
)
from slowfast.engine.evaluator import EvalConfig
from slowfast.engine.precision import Precision
from slowfast.models.episode_heads import EpisodeHead, OtamHead, PrototypeHead

CPU = torch.device("cpu")
CONFIG = EvalConfig(clips_per_forward=4)
NUM_CLASSES = 7
LABELS = [number % 7 for number in range(42)]
SPEC = EpisodeSpec(way=3, shot=2, query=2, count=70, seed=4)
FRAMES, WIDTH = 4, 6


class LabelHead(EpisodeHead):
    """Says of each class of the episode how many of its supports and of the query's label are of it."""

    def describe(self, features, label):
        assert len(features) == len(label)
        return {"mean": features.mean(dim=(1, 2)), "label": label}

    def score(self, support, query, classes):
        own = (support["label"] == classes[:, :, None]).sum(dim=2)  # (E, N)
        same = query["label"][:, :, None] == classes[:, None]  # (E, Q, N)
        return own[:, None] + 10.0 * same + query["mean"][:, :, None] * 1e-3


HEADS = {"prototype": PrototypeHead(), "otam": OtamHead(smoothing=0.5), "labels": LabelHead()}


def make_plan(**changes):
    spec = replace(SPEC, **changes)
    names = [str(number) for number in range(NUM_CLASSES)]
    records = [VideoRecord(f"v{number}", label) for number, label in enumerate(LABELS)]
    return plan_episodes(EpisodeDraws(LABELS, spec=spec, where="test.csv", names=names), records)


@pytest.fixture(scope="module")
def plan():
    return make_plan()


@pytest.fixture(scope="module")
def table():
    return torch.randn(len(LABELS), FRAMES, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def features(table):
    return lambda clips: table[torch.from_numpy(clips)]


def scored(head, plan, features, *, episodes=None, memo_bytes=1e9):
    """Numbers and scores of all batches, and the sizes of these."""
    numbers = range(len(plan)) if episodes is None else episodes
    batches = list(score_episodes(head, plan, features, episodes=list(numbers), device=CPU, memo_bytes=memo_bytes))
    ids, scores = torch.cat([b.video_id for b in batches]), torch.cat([b.logits for b in batches])
    return ids, scores, [len(b.video_id) for b in batches]


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize("name", HEADS)
def test_scores_are_those_of_each_episode_on_its_own(plan, table, features, name):
    ids, scores, sizes = scored(HEADS[name], plan, features)
    assert ids.tolist() == list(range(70))
    assert sizes == [64, 6]
    assert (scores.shape, scores.dtype, scores.requires_grad) == ((70, 6 * 3), torch.float32, False)
    head, label = HEADS[name], torch.tensor(LABELS)
    for number in range(70):
        support, query = (torch.from_numpy(part[number]) for part in (plan.support, plan.query))
        rows = {
            key: {n: row.view(1, *shape, *row.shape[1:]) for n, row in head.describe(table[i], label[i]).items()}
            for key, i, shape in (("support", support.flatten(), (3, 2)), ("query", query.flatten(), (6,)))
        }
        expected = head.score(rows["support"], rows["query"], torch.from_numpy(plan.classes[number])[None])
        torch.testing.assert_close(scores[number], expected.flatten(), rtol=1e-5, atol=1e-6)


def test_queries_are_compared_with_the_supports_of_their_episode(plan, features):
    """The class of a query is where its label says, and every class has its two supports."""
    _, scores, _ = scored(HEADS["labels"], plan, features)
    rows = scores.view(70, 3, 2, 3)  # by class of the query
    assert torch.equal(rows.argmax(dim=3), torch.arange(3)[None, :, None].expand(70, 3, 2))
    assert torch.equal(rows.round(), 2 + 10 * torch.eye(3)[None, :, None].expand(70, 3, 2, 3))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("memo_rows", "at_once"), [(0, 64), (1, 64), (20, 64), (30, 1), (1e9, 7)])
def test_memory_and_lots_change_no_bit(plan, features, monkeypatch, name, memo_rows, at_once):
    _, expected, _ = scored(HEADS[name], plan, features)
    monkeypatch.setattr(module, "_EPISODES_AT_ONCE", at_once)
    _, found, sizes = scored(HEADS[name], plan, features, memo_bytes=memo_rows * 4 * FRAMES * WIDTH)
    assert max(sizes) <= at_once
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", HEADS)
def test_the_order_and_choice_of_episodes_change_no_bit(plan, features, name):
    _, expected, _ = scored(HEADS[name], plan, features)
    order = random.Random(1).sample(range(70), 30)
    shares = [range(rank, 70, 3) for rank in range(3)]
    for episodes in (order, [69], *shares):
        ids, found, _ = scored(HEADS[name], plan, features, episodes=episodes)
        assert ids.tolist() == list(episodes)
        assert torch.equal(found, expected[ids])


def test_no_episode(plan, features):
    empty = np.empty(0, dtype=np.int64)
    found = score_episodes(HEADS["otam"], plan, features, episodes=empty, device=CPU, memo_bytes=0)
    assert list(found) == []


def test_every_clip_is_looked_up_once(plan, table):
    asked = []

    def features(clips):
        asked.extend(clips.tolist())
        return table[torch.from_numpy(clips)]

    scored(HEADS["prototype"], plan, features)
    assert sorted(asked) == plan.used.tolist()


def test_a_head_sees_no_other_clip_and_the_caller_keeps_its_gradients(plan, features):
    class Alone(LabelHead):
        def describe(self, features, label):
            assert (len(features), torch.is_grad_enabled()) == (1, False)
            return super().describe(features, label)

        def score(self, support, query, classes):
            assert (len(classes), torch.is_grad_enabled()) == (1, False)
            return super().score(support, query, classes).double()

    for batch in score_episodes(Alone(), plan, features, episodes=[3, 5], device=CPU, memo_bytes=0):
        assert torch.is_grad_enabled()
        assert batch.logits.dtype == torch.float32


# ---------------------------------------------------------------------------------------------------------------- memo


def test_the_least_recently_used_are_forgotten_first():
    computed = []

    def compute(clips):
        computed.append(clips.tolist())
        return {"row": torch.from_numpy(clips)[:, None].float()}

    memo = ClipMemo(compute, max_bytes=3 * 4)

    def ask(*clips):
        memo.rows(np.array(clips))
        return computed[-1]

    assert ask(0, 1, 2) == [0, 1, 2]
    ask(0)  # now 1 is the oldest
    assert ask(3) == [3]
    assert ask(1) == [1]  # and 2 went for it
    ask(0, 3)
    assert len(computed) == 3
    assert ask(4, 3, 2, 5, 0) == [2, 4, 5]  # more than there is room for
    assert ask(1) == [1]
    assert sum(map(len, computed)) == 9


# -------------------------------------------------------------------------------------------------------------- counts


def counted(plan, number, scores):
    counts = EpisodeCounts(plan, num_classes=NUM_CLASSES)
    return counts, counts.add(torch.tensor(number), scores)


def by_hand(plan, numbers, scores):
    """Right answers by episode, and of each class (queries, right ones)."""
    right, classes = [], {label: [0, 0] for label in range(NUM_CLASSES)}
    for number, row in zip(numbers, scores.view(len(numbers), 6, 3).tolist(), strict=True):
        hits = 0
        for query, values in enumerate(row):
            own = query // 2
            hit = all(
                values[own] > value or (values[own] == value and plan.classes[number][own] <= plan.classes[number][c])
                for c, value in enumerate(values)
            )
            hits += hit
            classes[plan.classes[number][own]][0] += 1
            classes[plan.classes[number][own]][1] += hit
        right.append(hits)
    return right, classes


@pytest.mark.parametrize("ties", [False, True])
def test_counts_against_a_loop(plan, ties):
    scores = torch.randn(70, 18, generator=torch.Generator().manual_seed(1))
    scores = scores.round() if ties else scores
    counts, right = counted(plan, list(range(70)), scores)
    expected, classes = by_hand(plan, range(70), scores)
    assert right.tolist() == expected
    assert counts.episodes.accuracy == pytest.approx(100 * np.mean([hits / 6 for hits in expected]))
    assert counts.episodes.interval == pytest.approx(
        1.96 * np.std([100 * hits / 6 for hits in expected], ddof=1) / np.sqrt(70)
    )
    assert counts.tally.videos.tolist() == [queries for queries, _ in classes.values()]
    assert counts.tally.top1.tolist() == [hits for _, hits in classes.values()]
    assert counts.tally.top5_acc == 100  # of three classes


def test_a_score_that_is_not_a_number_is_never_right(plan):
    perfect = torch.eye(3).repeat_interleave(2, dim=0).expand(2, 6, 3).clone()
    perfect[1, 4, 2] = torch.nan  # its own class
    perfect[1, 1, 2] = torch.nan  # another one, which then comes first
    counts, right = counted(plan, [8, 9], perfect.flatten(1))
    assert right.tolist() == [6, 4]
    nothing, right = counted(plan, [8, 9], torch.full((2, 18), torch.nan))
    assert right.tolist() == [0, 0]
    assert (nothing.episodes.accuracy, nothing.tally.top1_acc, nothing.tally.num_scored) == (0, 0, 12)
    assert counts.episodes.num_episodes == 2


def test_counts_add_up_in_any_grouping(plan):
    scores = torch.randn(70, 18, generator=torch.Generator().manual_seed(2))
    whole, _ = counted(plan, list(range(70)), scores)
    total = EpisodeCounts(plan, num_classes=NUM_CLASSES)
    for share in (range(1, 70, 2), range(0, 70, 2)):
        part, _ = counted(plan, list(share), scores[list(share)])
        total.merge(part.tally, part.episodes)
    assert torch.equal(total.tally.confusion, whole.tally.confusion)
    assert torch.equal(total.tally.top5, whole.tally.top5)
    assert torch.equal(total.episodes.counts, whole.episodes.counts)


def test_queries_one_by_one(plan):
    scores = torch.randn(2, 18, generator=torch.Generator().manual_seed(3))
    ids, label, logits = EpisodeCounts(plan, num_classes=NUM_CLASSES).queries(torch.tensor([5, 0]), scores)
    assert ids.tolist() == [*plan.query[5].ravel(), *plan.query[0].ravel()]
    assert label.tolist() == [LABELS[video] for video in ids]
    for row, (number, query) in enumerate(itertools.product((5, 0), range(6))):
        classes = plan.classes[number].tolist()
        assert logits[row, classes].tolist() == scores.view(2, 6, 3)[row // 6, query].tolist()
        others = [label for label in range(NUM_CLASSES) if label not in classes]
        assert logits[row, others].tolist() == [-torch.inf] * 4


# ------------------------------------------------------------------------------------------------- encoding and counts


def test_clips_are_encoded_into_rows_of_features(make_method, make_clips):
    method, clips = make_method().train(), make_clips(5, bad=("a",))
    shuffled = collate([clips.cut([2, 3])[1], clips.cut([2, 3])[0]])
    (found,) = encode_clips(
        method, [replace(shuffled, bad=("a",))], precision=Precision("cpu"), device=CPU, config=CONFIG
    )
    assert found.video_id.tolist() == [0, 1, 2, 3, 4]
    assert found.label.tolist() == clips.label.tolist()
    assert found.bad == ("a",)
    expected = torch.cat([method.frame_features(part) for part in clips.split(5)])
    assert torch.equal(found.logits, expected.flatten(1))
    assert method.training


@pytest.mark.parametrize("training", [True, False])
def test_feature_size(make_method, training):
    method = make_method().train(training)
    assert feature_size(method, num_frames=5, side=8, device=CPU) == (5, 27)
    assert method.training == training
    assert method.sizes == [1]

    def fail(batch):
        assert not method.training
        raise RuntimeError("no memory")

    method.frame_features = fail
    with pytest.raises(RuntimeError, match="no memory"):
        feature_size(method, num_frames=5, side=8, device=CPU)
    assert method.training == training


def evaluated(method, plan, batches, *, head=HEADS["otam"], memo_bytes=1e9):
    return evaluate_episodes(
        method, head, plan, batches, num_frames=2, num_classes=NUM_CLASSES, device=CPU, config=CONFIG,
        memo_bytes=memo_bytes,
    )  # fmt: skip


def without(batches, lost):
    """The batches of a loader that cannot decode some videos; a batch may be empty."""
    for batch in batches:
        kept = torch.tensor([video not in lost for video in batch.video_id.tolist()])
        clips = {name: getattr(batch, name)[kept] for name in ("frames", "label", "video_id", "view")}
        bad = tuple(f"v{video}: broken" for video in batch.video_id.tolist() if video in lost)
        yield replace(batch, bad=bad, **clips)


@pytest.fixture
def batches(make_clips):
    """Of all videos; labels as `make_clips` gives them are those of the plan."""
    return make_clips(len(LABELS)).split(9)


def direct(method, plan, head, batches, numbers):
    """Right answers, from the features of every video without a memo or a loader."""
    table = torch.cat([method.frame_features(part) for part in collate(batches).split(len(LABELS))]).detach()
    found = score_episodes(
        head, plan, lambda clips: table[torch.from_numpy(clips)], episodes=list(numbers), device=CPU, memo_bytes=1e9
    )
    return counted(plan, list(numbers), torch.cat([batch.logits for batch in found]))[0]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation(make_method, plan, batches, training):
    method = make_method().train(training)
    counts, bad = evaluated(method, plan, batches)
    assert method.training == training
    assert bad == ()
    expected = direct(method, plan, HEADS["otam"], batches, range(70))
    assert counts.episodes.num_episodes == 70
    assert 0 < counts.episodes.accuracy < 100
    assert torch.equal(counts.episodes.counts, expected.episodes.counts)
    assert torch.equal(counts.tally.confusion, expected.tally.confusion)


def test_order_and_size_of_batches_change_nothing(make_method, plan, batches):
    expected, _ = evaluated(make_method(), plan, batches)
    for other in (batches[::-1], [collate(batches)], collate(batches).split(42)):
        found, _ = evaluated(make_method(), plan, other, memo_bytes=0)
        assert torch.equal(found.tally.confusion, expected.tally.confusion)
        assert torch.equal(found.episodes.counts, expected.episodes.counts)


@pytest.mark.parametrize("lost", [{3}, {0, 41}, set(range(5))])
def test_episodes_of_a_bad_video_are_left_out(make_method, plan, batches, lost, caplog):
    counts, bad = evaluated(make_method(), plan, without(batches, lost))
    assert bad == tuple(sorted(f"v{video}: broken" for video in lost))
    kept = [
        number
        for number in range(70)
        if not lost & {*plan.support[number].ravel().tolist(), *plan.query[number].ravel().tolist()}
    ]
    assert 0 < len(kept) < 70
    expected = direct(make_method(), plan, HEADS["otam"], batches, kept)
    assert torch.equal(counts.episodes.counts, expected.episodes.counts)
    assert torch.equal(counts.tally.confusion, expected.tally.confusion)
    assert [record.getMessage() for record in caplog.records] == [f"not scored: {line}" for line in bad]


def test_clips_that_no_episode_takes_need_not_be_there(make_method, batches):
    plan = make_plan(count=2)
    assert plan.unused
    counts, _ = evaluated(make_method(), plan, without(batches, set(plan.unused)))
    whole, _ = evaluated(make_method(), plan, batches)
    assert counts.episodes.num_episodes == 2
    assert torch.equal(counts.tally.confusion, whole.tally.confusion)


def test_every_use_of_random_frames_is_a_clip(make_method, make_clips):
    plan = make_plan(count=4, random_frames=True)
    clips = make_clips(len(plan.records))
    clips = replace(clips, label=torch.tensor([record.label for record in plan.records]))
    counts, _ = evaluated(make_method(), plan, clips.split(7))
    assert counts.episodes.num_episodes == 4
    assert counts.tally.num_scored == 4 * 6


def test_no_episode_is_complete(make_method, batches):
    plan = make_plan(count=3)
    lost, used = {plan.query[number, 0, 0].item() for number in range(3)}, len(plan.used)
    taken = list(without(batches, set(plan.unused)))
    message = (
        rf"^none of the 3 episodes is complete: {used - len(lost)} of the {used} clips that they take could be "
        rf"decoded; the first: v\d+: broken$"
    )
    method = make_method().train()
    with pytest.raises(ValueError, match=message):
        evaluated(method, plan, without(taken, lost))
    assert method.training
    with pytest.raises(ValueError, match=rf"^none of the 3 episodes is complete: 0 of the {used} clips"):
        evaluated(method, plan, without(taken, set(plan.used.tolist())))


def test_complete_episodes(plan):
    assert complete_episodes(plan, plan.used, bad=()).tolist() == list(range(70))
    some = np.setdiff1d(plan.used, plan.query[4, 1, 1])
    assert complete_episodes(plan, some, bad=("a",)).tolist() == plan.complete(some).tolist()
    message = rf"^none of the 70 episodes is complete: 1 of the {len(plan.used)} clips that they take could be decoded$"
    with pytest.raises(ValueError, match=message):
        complete_episodes(plan, np.array([2]), bad=())
