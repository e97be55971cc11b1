import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.episodes import EpisodeDraws, plan_episodes
from slowfast.datasets.types import EpisodeSpec

SPEC = EpisodeSpec(way=2, shot=2, query=1, count=10, seed=0)
NAMES = ["run", "jump", "climb", "surf", "pour tea"]


def draws(labels, **changes):
    return EpisodeDraws(labels, spec=replace(SPEC, **changes), where="train.csv", names=NAMES)


def shuffled_labels(*per_class, seed=1):
    """Labels of a list in no order: so many videos of each class."""
    labels = [label for label, count in enumerate(per_class) for _ in range(count)]
    random.Random(seed).shuffle(labels)
    return labels


def plain(episode):
    return episode.classes.tolist(), episode.support.tolist(), episode.query.tolist()


def test_episodes_of_a_seed_stay_what_they_are():
    """Figures of a paper are means over these; another order of draws would be other episodes."""
    found = [plain(draws([0, 1, 2] * 4, seed=7)[number]) for number in (0, 1, 123456789)]
    assert found == [
        ([1, 0], [[10, 1], [3, 6]], [[4], [0]]),
        ([1, 0], [[4, 1], [0, 6]], [[7], [3]]),
        ([2, 1], [[5, 2], [10, 7]], [[11], [4]]),
    ]


def test_an_episode_does_not_depend_on_others():
    labels = shuffled_labels(5, 4, 3, 6)
    forwards = draws(labels)
    expected = [plain(forwards[number]) for number in range(8)]
    assert len({str(episode) for episode in expected}) == 8
    backwards = draws(np.array(labels, dtype=np.int32), count=3, random_frames=True)
    assert [plain(backwards[number]) for number in (7, 6, 5, 4, 3, 2, 1, 0)] == expected[::-1]
    assert plain(backwards[3]) == plain(backwards[3]) == expected[3]
    assert [plain(draws(labels, seed=1)[number]) for number in range(8)] != expected


def test_other_names_and_lists_of_the_same_labels_are_the_same_episodes():
    labels = shuffled_labels(5, 4, 3)
    other = EpisodeDraws(labels, spec=SPEC, where="elsewhere.csv", names=["a", "b", "c"])
    assert plain(other[5]) == plain(draws(labels)[5])


def within(counts, *, outcomes, total):
    """Every outcome occurs, and as often as the others up to five standard deviations."""
    expected = total / outcomes
    assert len(counts) == outcomes
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), counts


def test_draws_are_uniform():
    total, labels = 3000, shuffled_labels(4, 4, 4, 4)
    episodes = [draws(labels, shot=1)[number] for number in range(total)]
    within(Counter(tuple(episode.classes) for episode in episodes), outcomes=4 * 3, total=total)
    firsts = Counter((episode.support[0, 0], episode.query[0, 0]) for episode in episodes)
    within(firsts, outcomes=4 * (4 * 3), total=total)


def test_classes_of_unequal_size_are_drawn_alike():
    episodes = [draws(shuffled_labels(30, 3, 3))[number] for number in range(1200)]
    within(Counter(label for episode in episodes for label in episode.classes), outcomes=3, total=2400)


def test_classes_without_videos_are_left_out():
    labels = [0, 3, 4] * 4
    assert {label for number in range(50) for label in draws(labels)[number].classes} == {0, 3, 4}


def test_the_number_of_episodes():
    assert len(draws([0, 1] * 3, count=17)) == 17


@pytest.mark.parametrize("labels", [[0] * 9, [2] * 9, []])
def test_too_few_classes(labels):
    message = f"^EPISODES.WAY: 2, but train.csv has videos of {len(set(labels))} classes$"
    with pytest.raises(ValueError, match=message):
        draws(labels)


def test_too_few_videos_of_a_class():
    message = (
        r"^train\.csv: class 'climb' has 2 videos; an episode takes 3: 2 supports \(EPISODES\.SHOT\) and 1 queries "
        r"\(EPISODES\.QUERY\)$"
    )
    with pytest.raises(ValueError, match=message):
        draws(shuffled_labels(3, 3, 2, 3))
    draws(shuffled_labels(3, 3, 0, 3))


class TestSpare:
    LABELS = shuffled_labels(0, 6, 0, 5, 3)  # labels with gaps

    def left(self, episode, place):
        taken = {*episode.support[place], *episode.query[place]}
        return {
            video for video, label in enumerate(self.LABELS) if label == episode.classes[place] and video not in taken
        }

    def test_every_other_video_of_the_class_is_drawn(self):
        numbers = draws(self.LABELS)
        for number in range(6):
            for place in range(2):
                episode = numbers[number]
                found = {numbers.spare(episode, place, number, attempt) for attempt in range(60)}
                assert found == (self.left(episode, place) or {None})

    def test_it_follows_from_seed_and_key(self):
        numbers = draws(self.LABELS)
        episode = next(numbers[n] for n in range(9) if numbers[n].classes[0] == 1)

        def spares(role, **changes):
            return [draws(self.LABELS, **changes).spare(episode, 0, role, key) for key in range(30)]

        assert spares("query") == spares("query", count=99)
        assert spares("query") != spares("support")
        assert spares("query") != spares("query", seed=1)


class TestPlan:
    LABELS = shuffled_labels(7, 3, 5, 9)
    RECORDS = tuple(VideoRecord(f"v{number}", label) for number, label in enumerate(LABELS))

    def plan(self, **changes):
        return plan_episodes(draws(self.LABELS, **changes), self.RECORDS)

    def test_it_is_the_episodes_in_their_order(self):
        plan, numbers = self.plan(), draws(self.LABELS)
        assert len(plan) == 10
        assert (plan.classes.shape, plan.support.shape, plan.query.shape) == ((10, 2), (10, 2, 2), (10, 2, 1))
        for number in range(10):
            episode = plan.classes[number].tolist(), plan.support[number].tolist(), plan.query[number].tolist()
            assert episode == plain(numbers[number])
        assert plan.records == self.RECORDS

    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_used_and_unused(self, count):
        plan = self.plan(count=count)
        taken = {*plan.support.ravel().tolist(), *plan.query.ravel().tolist()}
        assert plan.used.tolist() == sorted(taken)
        assert plan.unused == [video for video in range(len(self.LABELS)) if video not in taken]

    @pytest.mark.parametrize("random_frames", [False, True])
    def test_complete_episodes(self, random_frames):
        plan = self.plan(count=30, random_frames=random_frames)
        for seed in range(5):
            total = len(plan.records)
            there = random.Random(seed).sample(range(total), total - 1 - seed)
            expected = [
                number
                for number in range(30)
                if {*plan.support[number].ravel(), *plan.query[number].ravel()} <= set(there)
            ]
            assert 0 < len(expected) < 30
            assert plan.complete(np.array(there)).tolist() == expected
        assert plan.complete(np.arange(len(plan.records))).tolist() == list(range(30))
        assert plan.complete(np.empty(0, np.int64)).tolist() == []

    def test_one_absent_query_is_enough(self):
        plan = self.plan(count=1)
        for lost in (plan.query[0, 1, 0], plan.support[0, 0, 1]):
            assert plan.complete(np.setdiff1d(plan.used, lost)).tolist() == []

    def test_with_random_frames_every_use_is_a_clip_of_its_own(self):
        fixed, plan = self.plan(), self.plan(random_frames=True)
        ids = np.concatenate((plan.support.ravel(), plan.query.ravel()))
        assert sorted(ids.tolist()) == list(range(10 * 2 * 3))
        assert plan.unused == []
        assert np.array_equal(plan.classes, fixed.classes)
        for name in ("support", "query"):
            for clip, video in zip(getattr(plan, name).ravel(), getattr(fixed, name).ravel(), strict=True):
                assert plan.records[clip] == self.RECORDS[video]

    def test_clips_of_an_episode_do_not_depend_on_how_many_there_are(self):
        few, many = (self.plan(random_frames=True, count=count) for count in (4, 9))
        assert np.array_equal(few.support, many.support[:4])
        assert np.array_equal(few.query, many.query[:4])
