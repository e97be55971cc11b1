from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slowfast.datasets import video_dataset
from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.decode import DecodeError, VideoInfo
from slowfast.datasets.episode_dataset import EpisodeDataset
from slowfast.datasets.episodes import EpisodeDraws
from slowfast.datasets.transforms import SpatialSettings
from slowfast.datasets.types import EpisodeSpec
from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset

SPEC = EpisodeSpec(way=2, shot=2, query=1, count=6, seed=0)
LABELS = [0, 1, 2] * 6
FRAMES = 60


class Decoder:
    """Videos of 60 frames, 32x40; all pixels of frame n are 4 * n. Keeps the paths that it read."""

    def __init__(self, bad=(), visit=lambda path: None):
        self.bad, self.visit, self.calls = set(bad), visit, []

    def __call__(self, path, plan, *, stamps=False):
        self.calls.append(path)
        self.visit(path)
        if path in self.bad:
            raise DecodeError(path, "the file is empty")
        indices = plan(
            VideoInfo(num_frames=FRAMES, fps=30.0, duration=None, stated_frames=None, pts=None, width=40, height=32)
        )
        return np.stack([np.full((32, 40, 3), 4 * index, np.uint8) for index in indices])


def reader(decode=None, labels=LABELS):
    return VideoDataset(
        [VideoRecord(f"v{number}", label) for number, label in enumerate(labels)],
        mode="train",
        sampling=SamplingSettings(num_frames=4, sampling_rate=4),
        spatial=SpatialSettings(jitter_scales=(32, 32), train_crop=32),
        seed=7,
        decode=decode or Decoder(),
    )


def dataset(decode=None, *, labels=LABELS, spec=SPEC, own=False):
    """Of one reader for both, or with one for queries alone."""
    draws = EpisodeDraws(labels, spec=spec, where="train.csv", names=["run", "jump", "climb"])
    support = reader(decode, labels)
    return EpisodeDataset(draws, support=support, query=reader(decode, labels) if own else support)


def starts(clips):
    """First frame of each clip."""
    return [int(clip[0, 0, 0, 0]) // 4 for clip in clips.frames]


def assert_same(one, other):
    for role in ("support", "query"):
        for name in ("frames", "label", "video_id", "view", "bad"):
            a, b = getattr(getattr(one, role), name), getattr(getattr(other, role), name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, (role, name)


def test_an_item_is_one_episode():
    episodes = dataset()
    assert (len(episodes), episodes.num_videos) == (6, 18)
    item = episodes[(0, 4)]
    drawn = episodes.draws[4]
    assert (len(item), item.way, item.shot, item.query_per_class) == (1, 2, 2, 1)
    assert item.support.video_id.tolist() == drawn.support.ravel().tolist()
    assert item.query.video_id.tolist() == drawn.query.ravel().tolist()
    assert item.classes.tolist() == [drawn.classes.tolist()]
    assert item.query.label.tolist() == drawn.classes.tolist()
    assert item.support.frames.shape == (4, 3, 4, 32, 32)
    assert item.bad == ()


def test_epochs_go_on_with_the_numbers_of_episodes():
    episodes = dataset()
    videos = [episodes[(epoch, index)].video_id.tolist() for epoch in range(3) for index in range(6)]
    expected = [episodes.draws[number] for number in range(18)]
    assert videos == [[*one.support.ravel().tolist(), *one.query.ravel().tolist()] for one in expected]
    assert len({str(row) for row in videos}) > 15


@pytest.mark.parametrize("own", [False, True])
def test_clips_are_drawn_anew_in_each_episode(own):
    """The same video begins at many places, as a support and as a query."""
    episodes = dataset(own=own)
    found = {"support": set(), "query": set()}
    for number in range(60):
        item = episodes[divmod(number, 6)]
        for role, seen in found.items():
            clips = getattr(item, role)
            seen |= {place for video, place in zip(clips.video_id.tolist(), starts(clips), strict=True) if video == 5}
    assert min(len(seen) for seen in found.values()) > 4


def test_clips_of_one_episode_are_drawn_each_on_its_own():
    """Also where their videos look alike: by place, by class, by role."""
    items = [dataset()[(0, index)] for index in range(6)]
    rows = np.array([[*starts(item.support), *starts(item.query)] for item in items])
    for one in range(rows.shape[1]):
        for other in range(one):
            assert (rows[:, one] != rows[:, other]).any(), (one, other)


def test_the_same_key_gives_the_same_bytes():
    straight = dataset()
    items = {key: straight[key] for key in [(0, 0), (0, 5), (2, 3)]}
    other = dataset()
    for key in reversed(items):
        assert_same(other[key], items[key])


def first_of(role, *, place=1, column=0):
    """A video of the first episode, by its place in there."""
    return f"v{getattr(dataset().draws[0], role)[place, column]}"


@pytest.mark.parametrize("role", ["support", "query"])
def test_a_bad_video_is_replaced_by_another_of_its_class_and_reported(role):
    bad, whole = first_of(role), dataset()[(0, 0)]
    item = dataset(Decoder(bad={bad}))[(0, 0)]
    assert item.bad == getattr(item, role).bad == (f"{bad}: the file is empty",)
    (place,) = (whole.video_id != item.video_id).nonzero().flatten().tolist()
    assert f"v{whole.video_id[place]}" == bad
    chosen = item.video_id[place].item()
    assert chosen not in whole.video_id
    assert LABELS[chosen] == LABELS[int(bad[1:])]
    assert torch.equal(item.classes, whole.classes)
    assert torch.equal(item.query.label, whole.query.label)
    other = "query" if role == "support" else "support"
    assert torch.equal(getattr(item, other).frames, getattr(whole, other).frames)  # nothing else moves
    assert_same(item, dataset(Decoder(bad={bad}))[(0, 0)])


def test_the_next_epoch_may_take_another_replacement():
    bad = [f"v{number}" for number in range(0, 18, 3)][:1]
    chosen = set()
    for number in range(60):
        item = dataset(Decoder(bad=bad))[divmod(number, 6)]
        drawn = dataset()[divmod(number, 6)]
        if item.bad:
            chosen |= {*item.video_id.tolist()} - {*drawn.video_id.tolist()}
    assert len(chosen) > 2


def test_every_video_that_failed_is_reported():
    """Of the three that the class has beside the episode's, two are bad: the third is found."""
    episode = dataset().draws[0]
    label = episode.classes[0]
    taken = {*episode.support[0].tolist(), *episode.query[0].tolist()}
    spares = [video for video in range(18) if LABELS[video] == label and video not in taken]
    bad = {f"v{video}" for video in (episode.support[0, 0], *spares[:2])}
    item = dataset(Decoder(bad))[(0, 0)]
    assert item.support.video_id[0] == spares[2]
    lines = {line.partition(": ")[0] for line in item.bad}
    assert f"v{episode.support[0, 0]}" in lines
    assert lines <= bad


def test_no_video_is_in_an_episode_twice():
    """Though several of a class are replaced."""
    for number in range(12):
        episode = dataset().draws[number]
        bad = {f"v{video}" for video in (*episode.support[0], *episode.query[0])}
        videos = dataset(Decoder(bad))[divmod(number, 6)].video_id.tolist()
        assert len(set(videos)) == len(videos)
        assert not {f"v{video}" for video in videos} & bad


def test_a_spare_that_is_good_is_found():
    """Whichever it is, and however many keys there are to draw from."""
    labels = [0] * 5 + [1] * 3
    for number in range(30):
        episode = dataset(labels=labels).draws[number]
        place = episode.classes.tolist().index(0)
        left = sorted({*range(5)} - {*episode.support[place], *episode.query[place]})
        for good in left:
            bad = {f"v{video}" for video in (episode.query[place, 0], *left) if video != good}
            item = dataset(Decoder(bad), labels=labels)[divmod(number, 6)]
            assert item.query.video_id[place] == good
            assert len(item.bad) == len(set(item.bad)) <= 2


@pytest.mark.parametrize(
    ("videos", "others"),
    [(3, "and its class has no other"), (4, "nor can 1 others of its class"), (12, "nor can 5 others of its class")],
)
def test_a_class_without_a_good_video_ends_the_run_in_one_line(videos, others):
    labels = [0] * videos + [1] * 4
    decode = Decoder(bad={f"v{number}" for number in range(videos)})
    with pytest.raises(ValueError, match=rf"^v\d+: the file is empty; {others}$"):
        dataset(decode, labels=labels)[(0, 0)]
    calls = [path for path in decode.calls if path in decode.bad]
    assert len(calls) == len(set(calls)) <= 6


def test_other_errors_pass_through():
    def visit(path):
        raise KeyError(path)

    with pytest.raises(KeyError):
        dataset(Decoder(visit=visit))[(0, 0)]


def test_readers_are_of_one_list():
    with pytest.raises(AssertionError, match="videos of one list"):
        EpisodeDataset(dataset().draws, support=reader(), query=reader(labels=LABELS[:9]))


@pytest.mark.parametrize("own", [False, True])
def test_a_worker_is_at_the_video_that_it_reads(monkeypatch, own):
    monkeypatch.setattr(video_dataset, "get_worker_info", lambda: SimpleNamespace(id=1))
    seen = []
    episodes = dataset(Decoder(visit=lambda path: seen.append((path, episodes.in_progress()))), own=own)
    episodes.watch(2)
    assert episodes.in_progress() == []
    episodes[(0, 0)]
    assert len(seen) == 6
    assert all(at == [path] for path, at in seen)
    assert episodes.in_progress() == []
    episodes.watch(0)
    episodes[(0, 0)]
    assert all(at == [] for _, at in seen[6:])


@pytest.mark.parametrize("first", ["support", "query"])
def test_the_video_that_was_begun_first_comes_in_front(monkeypatch, first):
    """It is the one that a worker hangs in, whatever another has begun since."""
    workers, found = iter([0, 1]), []
    monkeypatch.setattr(video_dataset, "get_worker_info", lambda: SimpleNamespace(id=next(workers)))
    second = "query" if first == "support" else "support"

    def visit(path):
        if path == "v3":
            readers[second].random_clip(4)
        else:
            found.extend(episodes.in_progress())

    decode = Decoder(visit=visit)
    readers = {"support": reader(decode), "query": reader(decode)}
    episodes = EpisodeDataset(dataset().draws, **readers)
    episodes.watch(2)
    readers[first].random_clip(3)
    assert found == ["v3", "v4"]
