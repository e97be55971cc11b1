"""What travels of episodes: which shapes there can be, and batches of clips that stay whole."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from slowfast.datasets.types import EpisodeBatch, EpisodeSpec, VideoBatch, collate_episodes

WAY, SHOT, QUERY = 3, 2, 2
SPEC = {"way": 5, "shot": 1, "query": 2, "count": 10, "seed": 0}


def clips(label, first):
    ids = torch.arange(first, first + len(label))
    frames = ids.to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 4, 4)
    return VideoBatch(frames, torch.as_tensor(label), ids, torch.zeros_like(ids))


def episode(number, *, bad=((), ())):
    """One of three classes, whose labels and video ids follow from its number."""
    classes = torch.tensor([number + 4, number, number + 2])
    first = number * WAY * (SHOT + QUERY)
    support = clips(classes.repeat_interleave(SHOT), first)
    query = clips(classes.repeat_interleave(QUERY), first + WAY * SHOT)
    return EpisodeBatch(replace(support, bad=bad[0]), replace(query, bad=bad[1]), WAY, SHOT, QUERY)


def batch(count):
    return collate_episodes([episode(number) for number in range(count)])


def assert_same(one, other):
    assert (one.way, one.shot, one.query_per_class) == (other.way, other.shot, other.query_per_class)
    for role in ("support", "query"):
        for name in ("frames", "label", "video_id", "view"):
            assert torch.equal(getattr(getattr(one, role), name), getattr(getattr(other, role), name)), (role, name)


class TestSpec:
    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("way", 1, "EPISODES.WAY: 1 is out of range; allowed: at least 2"),
            ("shot", 0, "EPISODES.SHOT: 0 is out of range; allowed: at least 1"),
            ("query", -1, "EPISODES.QUERY: -1 is out of range; allowed: at least 1"),
            ("count", 0, "EPISODES.NUM_TEST, NUM_VAL, NUM_TRAIN: 0 is out of range; allowed: at least 1"),
        ],
    )
    def test_each_number_has_a_lower_end(self, field, value, message):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            EpisodeSpec(**{**SPEC, field: value})
        assert str(caught.value) == message
        EpisodeSpec(**{**SPEC, field: value + (2 if field == "query" else 1)})

    def test_queries_of_an_episode(self):
        assert EpisodeSpec(**SPEC).num_queries == 10


class TestBatch:
    def test_an_episode(self):
        one = episode(1)
        assert len(one) == 1
        assert one.classes.tolist() == [[5, 1, 3]]
        assert one.target.tolist() == [0, 0, 1, 1, 2, 2]

    def test_several_episodes(self):
        both = batch(3)
        assert len(both) == 3
        assert both.classes.tolist() == [[4, 0, 2], [5, 1, 3], [6, 2, 4]]
        assert both.target.tolist() == [0, 0, 1, 1, 2, 2] * 3
        assert both.target.dtype == torch.int64

    def test_the_target_points_at_the_class_of_the_query(self):
        both = batch(3)
        label = both.query.label.view(3, -1)
        assert torch.equal(both.classes.gather(1, both.target.view(3, -1)), label)

    def test_ids_are_those_of_the_supports_and_then_of_the_queries(self):
        support, query = (range(0, 6), range(12, 18)), (range(6, 12), range(18, 24))
        expected = [video for part in (*support, *query) for video in part]
        assert batch(2).video_id.tolist() == expected

    def test_reports_of_both(self):
        joined = collate_episodes([
            episode(0, bad=(("a",), ("b",))), episode(1), episode(2, bad=((), ("c", "d"))),
        ])  # fmt: skip
        assert joined.support.bad == ("a",)
        assert joined.query.bad == ("b", "c", "d")
        assert joined.bad == ("a", "b", "c", "d")

    @pytest.mark.parametrize(("parts", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (5, [1] * 5), (9, [1] * 5)])
    def test_parts_are_whole_episodes(self, parts, sizes):
        whole = batch(5)
        found = whole.split(parts)
        assert [len(part) for part in found] == sizes
        assert_same(collate_episodes(found), whole)
        start = 0
        for part, size in zip(found, sizes, strict=True):
            assert_same(part, collate_episodes([episode(number) for number in range(start, start + size)]))
            start += size

    def test_joining_keeps_the_order_of_episodes(self):
        reordered = collate_episodes([episode(number) for number in (2, 0)])
        assert reordered.classes.tolist() == [[6, 2, 4], [4, 0, 2]]
        assert reordered.query.video_id.tolist() == [*range(30, 36), *range(6, 12)]
        with pytest.raises(AssertionError, match="at least one episode"):
            collate_episodes([])

    def test_to_moves_everything(self):
        moved = replace(episode(0), query=replace(episode(0).query, bad=("a",))).to("meta")
        for clip in (moved.support, moved.query):
            devices = {
                clip.frames.device.type,
                clip.label.device.type,
                clip.video_id.device.type,
                clip.view.device.type,
            }
            assert devices == {"meta"}
        assert moved.target.device.type == moved.classes.device.type == "meta"
        assert len(moved) == 1
        assert moved.bad == ("a",)

    def test_labels_stay_readable_on_the_host(self):
        moved = batch(2).to("meta")
        assert moved.support.label_numbers == batch(2).support.label.tolist()
        assert moved.split(2)[1].query.label_numbers == episode(1).query.label.tolist()

    def test_pin_memory_pins_both(self, monkeypatch):
        pinned = []
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.data_ptr()) or tensor)
        one = episode(0)
        assert_same(one.pin_memory(), one)
        tensors = {clip: {clip.frames, clip.label, clip.video_id, clip.view} for clip in (one.support, one.query)}
        assert set(pinned) == {tensor.data_ptr() for group in tensors.values() for tensor in group}

    def test_it_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            episode(0).way = 2

    @pytest.mark.parametrize("role", ["support", "query"])
    def test_clips_that_make_no_episode(self, role):
        one, other = episode(0), episode(1)
        with pytest.raises(AssertionError, match="are no episodes of"):
            replace(one, **{role: getattr(one, role).cut([5, 1])[0]})
        with pytest.raises(AssertionError, match="are no episodes of"):
            replace(one, **{role: getattr(batch(2), role)})  # of one episode more
        weights = torch.ones(6, 3)
        with pytest.raises(AssertionError, match="are not mixed"):
            replace(other, **{role: replace(getattr(other, role), weights=weights)})


class TestCut:
    """Of a batch of videos."""

    def videos(self, count=7):
        made = clips(torch.arange(count) % 3, 10)
        return replace(made, weights=torch.rand(count, 3), host_label=made.label, bad=("a",))

    def test_sizes(self):
        whole = self.videos()
        parts = whole.cut([2, 0, 4, 1])
        assert [len(part) for part in parts] == [2, 0, 4, 1]
        for name in ("frames", "label", "video_id", "view", "weights", "host_label"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
        assert all(part.bad == () for part in parts)

    def test_what_a_batch_lacks_its_parts_lack(self):
        (part,) = clips(torch.arange(3), 0).cut([3])
        assert part.weights is None
        assert part.host_label is None

    @pytest.mark.parametrize("sizes", [[3, 3], [7, 1], []])
    def test_sizes_that_do_not_add_up(self, sizes):
        with pytest.raises(RuntimeError):
            self.videos().cut(sizes)

    @pytest.mark.parametrize(("parts", "sizes"), [(1, [7]), (3, [3, 2, 2]), (7, [1] * 7), (99, [1] * 7)])
    def test_split_is_nearly_equal(self, parts, sizes):
        found = self.videos().split(parts)
        assert [len(part) for part in found] == sizes
        assert torch.cat([part.video_id for part in found]).tolist() == list(range(10, 17))
