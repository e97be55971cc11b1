"""Episodes as a configuration describes them: their loaders, on any number of processes and workers."""

import numpy as np
import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets import build
from slowfast.datasets.build import build_episode_dataset, build_episode_plan, build_plan_loader, build_split_loader
from slowfast.datasets.decode import DecodeError, VideoInfo
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.train_loader import TrainLoader
from slowfast.datasets.types import EpisodeBatch, EpisodeSpec, Split, VideoBatch, collate_episodes

LABELS = LabelSet.from_names(["run", "jump", "climb"])
SPEC = EpisodeSpec(way=2, shot=2, query=1, count=12, seed=5)
FRAMES = 60


def decode(path, plan, *, stamps=False):
    """Videos of 60 frames, 32x40: frame n is 4 * n, but for its right quarter, which is white."""
    if path.endswith("broken"):
        raise DecodeError(path, "the file is empty")
    indices = plan(
        VideoInfo(num_frames=FRAMES, fps=30.0, duration=None, stated_frames=None, pts=None, width=40, height=32)
    )
    frames = np.stack([np.full((32, 40, 3), 4 * index, np.uint8) for index in indices])
    frames[:, :, 30:] = 255
    return frames


def is_mirrored(clips):
    return [bool((clip[..., 0] == 255).all()) for clip in clips.frames]


@pytest.fixture
def cfg(monkeypatch):
    monkeypatch.setattr(build, "_decoder", lambda cfg, *, frames: decode)
    cfg = get_cfg()
    cfg.RNG_SEED = 3
    cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE = 4, 6
    cfg.DATA_LOADER.NUM_WORKERS = 0
    cfg.DATA.PATH_LABEL_SEPARATOR = ","
    cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE = 4, 4
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 32]
    cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE = 32, 32
    return cfg


@pytest.fixture
def make_split(tmp_path):
    def make(mode, *, rows=18, spec=SPEC, name="v{}"):
        names = [name.format(row) for row in range(rows)]
        for file in names:
            (tmp_path / file).touch()
        csv = tmp_path / f"{mode}.csv"
        csv.write_text("".join(f"{tmp_path / file},{row % 3}\n" for row, file in enumerate(names)))
        return Split(name=mode, csv=csv, label_set=LABELS, mode=mode, episodes=spec)

    return make


def assert_same(one, other):
    if isinstance(one, EpisodeBatch):
        assert (one.way, one.shot, one.query_per_class) == (other.way, other.shot, other.query_per_class)
        assert_same(one.support, other.support)
        assert_same(one.query, other.query)
        return
    assert isinstance(one, VideoBatch)
    for name in ("frames", "label", "video_id", "view"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.bad == other.bad


def epoch_of(loader, epoch=1, **options):
    return list(TrainLoader(loader).epoch(epoch, **options))


class TestTraining:
    def test_a_step_has_the_batch_size_in_episodes(self, cfg, make_split):
        loader = build_split_loader(make_split("train"), cfg=cfg)
        batches = epoch_of(loader)
        assert [len(batch) for batch in batches] == [4, 4, 4]
        assert batches[0].support.frames.shape == (4 * 4, 3, 4, 32, 32)
        assert batches[0].query.frames.shape == (4 * 2, 3, 4, 32, 32)
        wrapped = TrainLoader(loader)
        assert (len(wrapped), wrapped.global_batch, wrapped.num_samples, wrapped.num_videos) == (3, 4, 12, 18)

    def test_they_are_the_episodes_of_the_epoch_in_their_order(self, cfg, make_split):
        draws = build_episode_dataset(make_split("train"), cfg=cfg).draws
        for epoch in (0, 2):
            joined = collate_episodes(epoch_of(build_split_loader(make_split("train"), cfg=cfg), epoch))
            expected = [draws[number] for number in range(12 * epoch, 12 * epoch + 12)]
            assert joined.classes.tolist() == [episode.classes.tolist() for episode in expected]
            supports = joined.support.video_id.view(12, 2, 2)
            assert supports.tolist() == [episode.support.tolist() for episode in expected]

    @pytest.mark.parametrize("world_size", [2, 4])
    def test_processes_together_see_the_episodes_of_one(self, cfg, make_split, world_size):
        split = make_split("train")
        whole = epoch_of(build_split_loader(split, cfg=cfg))
        parts = [
            epoch_of(build_split_loader(split, cfg=cfg, rank=rank, world_size=world_size, local_world_size=world_size))
            for rank in range(world_size)
        ]
        assert {len(batch) for part in parts for batch in part} == {4 // world_size}
        for step, batch in enumerate(whole):
            assert_same(collate_episodes([part[step] for part in parts]), batch)

    def test_machines_add_up(self, cfg, make_split):
        loader = build_split_loader(make_split("train"), cfg=cfg, rank=3, world_size=4, local_world_size=2)
        assert TrainLoader(loader).global_batch == 8
        (batch,) = epoch_of(loader)
        draws = build_episode_dataset(make_split("train"), cfg=cfg).draws
        assert batch.classes.tolist() == [draws[12 + number].classes.tolist() for number in (6, 7)]

    def test_parts_of_a_step_hold_the_same_episodes_on_any_number_of_processes(self, cfg, make_split):
        cfg.TRAIN.ACCUMULATION_STEPS = 2
        split = make_split("train")
        whole = epoch_of(build_split_loader(split, cfg=cfg))
        ranks = [
            epoch_of(build_split_loader(split, cfg=cfg, rank=rank, world_size=2, local_world_size=2))
            for rank in range(2)
        ]
        for step, batch in enumerate(whole):
            shares = [rank[step].split(2) for rank in ranks]
            for number, part in enumerate(batch.split(2)):
                assert_same(collate_episodes([share[number] for share in shares]), part)

    def test_workers_change_nothing(self, cfg, make_split, monkeypatch):
        monkeypatch.setattr(build, "_num_cores", lambda: 2)
        split = make_split("train")
        alone = epoch_of(build_split_loader(split, cfg=cfg))
        cfg.DATA_LOADER.NUM_WORKERS = 2
        loader = build_split_loader(split, cfg=cfg)
        assert loader.num_workers == 2
        for one, other in zip(alone, epoch_of(loader), strict=True):
            assert_same(one, other)

    def test_an_epoch_goes_on_and_a_batch_comes_again(self, cfg, make_split):
        wrapped = TrainLoader(build_split_loader(make_split("train"), cfg=cfg))
        whole = list(wrapped.epoch(2))
        for one, other in zip(whole[1:], wrapped.epoch(2, first=4), strict=True):
            assert_same(one, other)
        for number, batch in enumerate(whole):
            assert_same(wrapped.again(2, first=4 * number), batch)

    def test_clips_follow_from_the_seed_of_the_run(self, cfg, make_split):
        before = epoch_of(build_split_loader(make_split("train"), cfg=cfg))[0]
        cfg.RNG_SEED = 4
        after = epoch_of(build_split_loader(make_split("train"), cfg=cfg))[0]
        assert torch.equal(before.video_id, after.video_id)  # these have a seed of their own
        assert not torch.equal(before.support.frames, after.support.frames)

    def test_fewer_episodes_than_a_step_takes(self, cfg, make_split):
        cfg.TRAIN.BATCH_SIZE = 13
        with pytest.raises(ValueError, match=r"^TRAIN\.BATCH_SIZE: 13 .* per step over all processes"):
            build_split_loader(make_split("train"), cfg=cfg)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_class_that_cannot_be_decoded_is_one_line(self, cfg, make_split, workers):
        cfg.DATA_LOADER.NUM_WORKERS = workers
        loader = build_split_loader(make_split("train", name="v{}broken"), cfg=cfg)
        with pytest.raises(ValueError, match=r"^\S*broken: the file is empty; nor can 3 others of its class$"):
            epoch_of(loader)

    def test_the_list_is_named_that_has_too_few(self, cfg, make_split):
        with pytest.raises(ValueError, match=r"train\.csv: class 'run' has 2 videos; an episode takes 3"):
            build_split_loader(make_split("train", rows=6), cfg=cfg)


class TestPlainSupports:
    """EPISODES.PLAIN_SUPPORT."""

    def clips(self, cfg, make_split, *, plain):
        cfg.EPISODES.PLAIN_SUPPORT = plain
        return collate_episodes(epoch_of(build_split_loader(make_split("train"), cfg=cfg)))

    @pytest.mark.parametrize("plain", [False, True])
    def test_supports_are_not_mirrored(self, cfg, make_split, plain):
        cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE, cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE = [1.0, 1.0], [1.25, 1.25]
        found = self.clips(cfg, make_split, plain=plain)
        assert 0 < sum(is_mirrored(found.query)) < 24
        assert any(is_mirrored(found.support)) != plain

    @pytest.mark.parametrize("plain", [False, True])
    def test_supports_are_not_augmented(self, cfg, make_split, plain):
        cfg.DATA.RANDOM_FLIP = False
        cfg.DATA.MEAN = [0.5, 0.25, 0.5]  # no pixel of a video has it
        cfg.AUG.ENABLE, cfg.AUG.AA_TYPE, cfg.AUG.COLOR_JITTER = True, "", 0.0
        cfg.AUG.RE_PROB, cfg.AUG.RE_MODE = 1.0, "const"
        found = self.clips(cfg, make_split, plain=plain)

        def erased(clips):
            return [bool((clip[0] != clip[1]).any()) for clip in clips.frames]

        assert all(erased(found.query))
        assert erased(found.support) == [not plain] * 48

    def test_nothing_else_changes(self, cfg, make_split):
        cfg.DATA.RANDOM_FLIP = False
        plain, other = (self.clips(cfg, make_split, plain=plain) for plain in (True, False))
        assert_same(plain, other)

    def test_a_reader_of_their_own_is_watched_too(self, cfg, make_split):
        cfg.EPISODES.PLAIN_SUPPORT = True
        dataset = build_episode_dataset(make_split("train"), cfg=cfg)
        dataset.watch(2)
        assert dataset.in_progress() == []
        assert dataset.num_videos == 18


class TestPlan:
    def plan(self, make_split, mode="test", **changes):
        fields = {name: getattr(SPEC, name) for name in ("way", "shot", "query", "count", "seed")}
        return make_split(mode, spec=EpisodeSpec(**{**fields, **changes}))

    def test_the_videos_of_the_list(self, cfg, make_split, tmp_path):
        plan = build_episode_plan(make_split("test"), cfg=cfg)
        assert len(plan) == 12
        assert [record.path for record in plan.records] == [str(tmp_path / f"v{number}") for number in range(18)]

    @pytest.mark.parametrize("mode", ["val", "test"])
    def test_every_clip_that_is_taken_is_read_once(self, cfg, make_split, mode):
        plan = build_episode_plan(self.plan(make_split, mode, count=3), cfg=cfg)
        assert len(plan.unused) > 0
        batches = list(build_plan_loader(plan, mode=mode, cfg=cfg))
        ids = [video for batch in batches for video in batch.video_id.tolist()]
        assert ids == plan.used.tolist()
        assert [len(batch) for batch in batches][:-1] == [6] * (len(batches) - 1)
        for batch in batches:
            assert batch.label.tolist() == [plan.records[video].label for video in batch.video_id]

    def test_what_was_encoded_is_left_out(self, cfg, make_split):
        plan = build_episode_plan(self.plan(make_split, count=3), cfg=cfg)
        done = plan.used[::2].tolist()
        batches = build_plan_loader(plan, mode="test", cfg=cfg, skip=[*done, plan.unused[0]])
        assert [video for batch in batches for video in batch.video_id.tolist()] == plan.used[1::2].tolist()

    def test_processes_share_the_clips(self, cfg, make_split):
        plan = build_episode_plan(self.plan(make_split, count=3), cfg=cfg)
        parts = [
            list(build_plan_loader(plan, mode="test", cfg=cfg, rank=rank, world_size=2, local_world_size=2))
            for rank in range(2)
        ]
        ids = [[video for batch in part for video in batch.video_id.tolist()] for part in parts]
        assert sorted(ids[0] + ids[1]) == plan.used.tolist()
        assert max(len(batch) for part in parts for batch in part) == 3

    def test_the_size_of_a_picture_is_that_of_its_mode(self, cfg, make_split):
        cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE = 24, 28
        plan = build_episode_plan(make_split("test"), cfg=cfg)
        for mode, size in (("val", 24), ("test", 28)):
            assert next(iter(build_plan_loader(plan, mode=mode, cfg=cfg))).frames.shape[-1] == size

    def test_neither_views_nor_crops_nor_the_seed_change_the_clips(self, cfg, make_split):
        plan = build_episode_plan(make_split("test"), cfg=cfg)
        before = next(iter(build_plan_loader(plan, mode="test", cfg=cfg)))
        cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS, cfg.RNG_SEED = 3, 3, 99
        assert_same(next(iter(build_plan_loader(plan, mode="test", cfg=cfg))), before)
        assert len({clip.flatten()[0].item() for clip in before.frames}) == 1  # the frames in the middle

    def frames(self, cfg, make_split, **changes):
        """First frame of each clip, by episode."""
        plan = build_episode_plan(self.plan(make_split, random_frames=True, **changes), cfg=cfg)
        starts = {}
        for batch in build_plan_loader(plan, mode="test", cfg=cfg):
            pixels = batch.frames[:, 0, 0, 0, 0].tolist()
            starts |= dict(zip(batch.video_id.tolist(), (pixel // 4 for pixel in pixels), strict=True))
        clips = np.concatenate((plan.support, plan.query), axis=2).reshape(len(plan), -1)
        return [[starts[clip] for clip in row] for row in clips.tolist()]

    def test_random_frames_are_drawn_for_every_use(self, cfg, make_split):
        found = self.frames(cfg, make_split)
        assert len(found) == 12
        assert all(len(set(row)) > 2 for row in found)
        assert len({tuple(row) for row in found}) == 12

    def test_random_frames_follow_from_the_seed_of_the_episodes_and_the_episode(self, cfg, make_split):
        """So that all methods and runs meet on the same ones."""
        found = self.frames(cfg, make_split)
        cfg.RNG_SEED = 99
        assert self.frames(cfg, make_split) == found
        assert self.frames(cfg, make_split, count=7) == found[:7]
        assert self.frames(cfg, make_split, seed=6) != found
