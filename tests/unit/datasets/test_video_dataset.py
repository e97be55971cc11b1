import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.decode import DecodeError, VideoInfo
from slowfast.datasets.frame_colors import ColorSettings
from slowfast.datasets.frame_sampling import ClipPosition, Stride, dense_indices
from slowfast.datasets.rand_augment import OPERATIONS, parse_rand_augment
from slowfast.datasets.random_erasing import ErasingSettings
from slowfast.datasets.sampler import TrainBatchSampler
from slowfast.datasets.transforms import AugmentSettings, SpatialSettings
from slowfast.datasets.types import collate
from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset
from slowfast.utils.seed import derive_seed

FRAMES = 60


class FakeDecoder:
    """Videos of 60 frames, 32x40; the pixels of frame n of video v are 4 * n + v, with n in the first column too."""

    def __init__(self, bad=()):
        self.bad = set(bad)
        self.calls = []

    def __call__(self, path, plan, *, stamps=False):
        self.calls.append(path)
        if path in self.bad:
            raise DecodeError(path, "the file is empty")
        info = VideoInfo(
            num_frames=FRAMES,
            fps=30.0,
            duration=FRAMES * 10 if stamps else None,
            stated_frames=FRAMES,
            pts=tuple(range(0, FRAMES * 10, 10)) if stamps else None,
            width=40,
            height=32,
        )
        indices = plan(info)
        rows = [np.full((32, 40, 3), 4 * index + int(path[1:]) % 4, np.uint8) for index in indices]
        return np.stack(rows)


def dataset(mode, *, count=6, decode=None, **options):
    settings = {
        "sampling": SamplingSettings(num_frames=4, sampling_rate=4),
        "spatial": SpatialSettings(jitter_scales=(32, 32), train_crop=32, test_crop=32),
        "seed": 7,
        **options,
    }
    records = [VideoRecord(f"v{i}", i % 3) for i in range(count)]
    return VideoDataset(records, mode=mode, decode=decode or FakeDecoder(), **settings)


def frame_numbers(clip):
    return [int(value) // 4 for value in clip[0, :, 0, 0]]


def assert_same(one, other):
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.label, other.label)
    assert torch.equal(one.video_id, other.video_id)
    assert torch.equal(one.view, other.view)
    assert one.bad == other.bad


class TestTraining:
    def test_item(self):
        item = dataset("train")[(0, 4)]
        assert item.frames.shape == (1, 3, 4, 32, 32)
        assert item.frames.dtype == torch.uint8
        assert (item.label.tolist(), item.video_id.tolist(), item.view.tolist()) == ([1], [4], [0])
        numbers = frame_numbers(item.frames[0])
        assert np.diff(numbers).tolist() == [4, 4, 4]

    def test_clip_follows_from_seed_epoch_and_index(self):
        videos = dataset("train")
        assert_same(videos[(3, 2)], dataset("train")[(3, 2)])
        starts = {frame_numbers(videos[(epoch, 2)].frames[0])[0] for epoch in range(8)}
        assert len(starts) > 3
        assert frame_numbers(videos[(0, 0)].frames[0]) != frame_numbers(videos[(0, 1)].frames[0])
        assert any(
            frame_numbers(dataset("train", seed=seed)[(0, 2)].frames[0]) != frame_numbers(videos[(0, 2)].frames[0])
            for seed in range(3)
        )

    def test_several_crops_of_one_decoded_clip(self):
        decode = FakeDecoder()
        spatial = SpatialSettings(jitter_scales=(32, 48), train_crop=32)
        item = dataset("train", decode=decode, crops_per_clip=3, spatial=spatial)[(0, 4)]
        assert item.frames.shape[0] == 3
        assert item.view.tolist() == [0, 1, 2]
        assert item.label.tolist() == [1, 1, 1]
        assert len(decode.calls) == 1

    def test_workers_change_nothing(self):
        def batches(workers):
            videos = dataset("train", count=12, spatial=SpatialSettings(jitter_scales=(32, 48), train_crop=32))
            sampler = TrainBatchSampler(12, batch_size=4, seed=7)
            sampler.set_epoch(2)
            return list(DataLoader(videos, batch_sampler=sampler, num_workers=workers, collate_fn=collate))

        for alone, shared in zip(batches(0), batches(2), strict=True):
            assert_same(alone, shared)

    def test_frame_rate_jitter_shortens_the_stride(self):
        sampling = SamplingSettings(num_frames=4, sampling_rate=8, jitter_fps=30.0)
        spans = set()
        for epoch in range(12):
            numbers = frame_numbers(dataset("train", sampling=sampling)[(epoch, 0)].frames[0])
            spans.add(numbers[-1] - numbers[0])
        assert min(spans) >= 12
        assert max(spans) <= 24
        assert len(spans) > 3

    def test_uniform_sampling_draws_in_each_segment(self):
        videos = dataset("train", sampling=SamplingSettings(num_frames=4, rule="uniform"))
        clips = [frame_numbers(videos[(epoch, 2)].frames[0]) for epoch in range(20)]
        assert all([number // 15 for number in clip] == [0, 1, 2, 3] for clip in clips)
        places = np.array(clips) % 15
        assert len(np.unique(places)) > 10
        assert (places != places[:, :1]).any(axis=1).all()  # a draw for each segment
        assert_same(videos[(3, 2)], dataset("train", sampling=SamplingSettings(num_frames=4, rule="uniform"))[(3, 2)])
        assert frame_numbers(videos[(0, 0)].frames[0]) != clips[0]

    def test_dense_clips_lie_where_the_first_number_of_their_stream_says(self):
        """Whatever other rules draw, clips of the default rule stay where they always were."""
        videos = dataset("train")
        for epoch in range(8):
            fraction = random.Random(derive_seed("clip", 7, epoch, 2)).random()
            position = ClipPosition(fraction=fraction)
            stride = Stride(num_frames=4, sampling_rate=4, target_fps=30)
            expected = dense_indices(FRAMES, 30, stride=stride, position=position)
            assert frame_numbers(videos[(epoch, 2)].frames[0]) == expected

    def test_rules_share_crops(self):
        """Segments have a random stream of their own: neither places of other rules nor crops move."""
        spatial = SpatialSettings(jitter_scales=(40, 56), train_crop=32)
        dense, uniform = (
            dataset(
                "train", decode=PictureDecoder(), spatial=spatial, sampling=SamplingSettings(num_frames=4, rule=rule)
            )
            for rule in ("dense", "uniform")
        )
        for epoch in range(4):
            assert_same(dense[(epoch, 1)], uniform[(epoch, 1)])

    def test_bad_video_is_replaced_and_reported(self):
        item = dataset("train", decode=FakeDecoder(bad={"v4"}))[(1, 4)]
        assert item.bad == ("v4: the file is empty",)
        (chosen,) = item.video_id.tolist()
        assert chosen != 4
        assert item.label.tolist() == [chosen % 3]
        assert_same(item, dataset("train", decode=FakeDecoder(bad={"v4"}))[(1, 4)])
        others = {dataset("train", decode=FakeDecoder(bad={"v4"}))[(e, 4)].video_id.item() for e in range(10)}
        assert len(others) > 1

    def test_gives_up_after_a_handful(self):
        decode = FakeDecoder(bad={f"v{i}" for i in range(6)})
        item = dataset("train", decode=decode)[(0, 1)]
        assert len(item) == 0
        assert len(decode.calls) == len(item.bad) == 6
        batch = collate([item, dataset("train")[(0, 2)]])
        assert len(batch) == 1
        assert len(batch.bad) == 6


class PictureDecoder(FakeDecoder):
    """Videos of one noise picture each, larger than the crop."""

    def __call__(self, path, plan, *, stamps=False):
        count = len(super().__call__(path, plan, stamps=stamps))
        picture = np.random.RandomState(int(path[1:])).randint(40, 200, (48, 64, 3)).astype(np.uint8)
        return np.repeat(picture[None], count, axis=0)


class TestAugmentation:
    SPATIAL = SpatialSettings(jitter_scales=(40, 56), train_crop=32, test_crop=32)
    FULL = AugmentSettings(rand_augment=parse_rand_augment("rand-m7-n4-mstd0.5-inc1"), erasing=ErasingSettings())
    ERASE = AugmentSettings(erasing=ErasingSettings(probability=1.0, mode="const", mean=(0.0, 0.0, 0.0)))

    def videos(self, augment=None, **options):
        return dataset("train", augment=augment, decode=PictureDecoder(), **{"spatial": self.SPATIAL, **options})

    def test_all_frames_of_a_clip_alike(self):
        settings = AugmentSettings(rand_augment=self.FULL.rand_augment)
        for index in range(6):
            (clip,) = self.videos(settings)[(0, index)].frames
            assert torch.equal(clip, clip[:, :1].expand_as(clip))

    def test_crop_stays_where_it_is(self):
        for number in range(6):
            plain = self.videos(crops_per_clip=2)[(number, number)].frames
            erased = self.videos(self.ERASE, crops_per_clip=2)[(number, number)].frames
            kept = erased != 0
            assert 0.5 < kept.float().mean() < 1
            assert torch.equal(erased[kept], plain[kept])  # the same scale, crop and flip
        for epoch in range(4):
            args = {"sampling": SamplingSettings(num_frames=4, sampling_rate=4, jitter_fps=10.0)}
            plain, augmented = (dataset("train", augment=a, **args)[(epoch, 2)] for a in (None, self.ERASE))
            kept = augmented.frames != 0
            assert torch.equal(augmented.frames[kept], plain.frames[kept])  # the same place in time

    def test_crops_of_a_clip_are_augmented_differently(self):
        spatial = SpatialSettings(jitter_scales=(48, 48), train_crop=32, flip=False)
        settings = AugmentSettings(color_jitter=0.4)
        item = self.videos(settings, crops_per_clip=4, spatial=spatial)[(0, 1)]
        means = [clip.float().mean().item() for clip in item.frames]
        assert len({round(mean / 4) for mean in means}) > 2
        boxes = self.videos(self.ERASE, crops_per_clip=4, spatial=spatial)[(0, 1)].frames
        masks = (boxes == 0).all(dim=1)
        assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4

    def test_differs_between_epochs_and_follows_from_the_seed(self):
        one, other = (self.videos(self.FULL, crops_per_clip=2) for _ in range(2))
        items = [one[(epoch, 0)] for epoch in range(6)]
        for epoch, item in enumerate(items):
            assert_same(item, other[(epoch, 0)])
        assert len({tuple(item.frames.flatten().tolist()) for item in items}) == 6

    def test_workers_change_nothing(self):
        def batches(workers):
            videos = self.videos(self.FULL, count=12, crops_per_clip=2)
            sampler = TrainBatchSampler(12, batch_size=4, seed=7)
            return list(DataLoader(videos, batch_sampler=sampler, num_workers=workers, collate_fn=collate))

        for alone, shared in zip(batches(0), batches(2), strict=True):
            assert len(alone) == 8
            assert_same(alone, shared)

    def test_colors_change_on_the_crop(self):
        settings = AugmentSettings(colors=ColorSettings(jitter_prob=1.0))
        plain, jittered = (self.videos(each)[(0, 2)].frames for each in (None, settings))
        assert jittered.dtype == torch.uint8
        (clip,) = jittered
        assert not torch.equal(clip[:, 0], clip[:, 1])
        assert not torch.equal(jittered, plain)
        gray = AugmentSettings(colors=ColorSettings(gray_prob=1.0))
        (clip,) = self.videos(gray)[(0, 2)].frames
        expected = (plain[0].float() * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1, 1)).sum(dim=0)
        assert (clip.float() - expected).abs().max() <= 1  # the same place, without colours

    def test_colors_of_exact_and_turned_crops(self):
        settings = AugmentSettings(colors=ColorSettings(jitter_prob=1.0))

        def item(**options):
            spatial = SpatialSettings(jitter_scales=(40, 56), train_crop=32, **options)
            return self.videos(settings, spatial=spatial, crops_per_clip=2)[(0, 2)].frames

        exact, swapped = item(dtype="float32"), item(bgr=True)
        assert exact.dtype == torch.float32
        assert (exact - item().float()).abs().max() <= 0.5  # rounded once, at the end
        assert not torch.equal(exact, exact.round())
        assert torch.equal(swapped, item().flip(1))
        assert not torch.equal(exact[0], exact[1])

    def test_first_crop_stays_clean(self):
        settings = AugmentSettings(erasing=self.ERASE.erasing, clean_first=True)
        plain = self.videos(crops_per_clip=3)[(0, 3)].frames
        kept = self.videos(settings, crops_per_clip=3)[(0, 3)].frames
        assert [torch.equal(*pair) for pair in zip(plain, kept, strict=True)] == [True, False, False]

    def test_runs_before_the_crop(self, monkeypatch):
        sizes = []
        operation = OPERATIONS["Invert"]
        for name in OPERATIONS:
            fake = type(operation)(
                lambda frames, amount, warp: (sizes.append(tuple(frames.shape)), frames)[1],
                *(operation.level,) * 2,
                0.1,
            )
            monkeypatch.setitem(OPERATIONS, name, fake)
        self.videos(AugmentSettings(rand_augment=parse_rand_augment("rand-n3-p1")), crops_per_clip=2)[(0, 0)]
        assert sizes == [(4, 3, 48, 64)] * 6

    def test_float32_clips_are_erased_exactly(self):
        spatial = SpatialSettings(jitter_scales=(40, 56), train_crop=32, dtype="float32")
        settings = AugmentSettings(erasing=ErasingSettings(probability=1.0, mode="const", mean=(0.3, 0.4, 0.5)))
        (clip,) = self.videos(settings, spatial=spatial)[(0, 0)].frames
        values = [
            (clip[channel] == np.float32(255 * mean)).float().mean() for channel, mean in enumerate((0.3, 0.4, 0.5))
        ]
        assert min(values) > 0.01

    def test_evaluation_is_not_augmented(self):
        for mode in ("val", "test"):
            plain = dataset(mode, decode=PictureDecoder(), spatial=self.SPATIAL)[0]
            assert_same(dataset(mode, decode=PictureDecoder(), spatial=self.SPATIAL, augment=self.FULL)[0], plain)

    def test_bad_video_takes_the_augmentation_of_its_place(self):
        decode = PictureDecoder(bad={"v4"})
        one, other = (dataset("train", augment=self.FULL, decode=decode, spatial=self.SPATIAL) for _ in range(2))
        assert_same(one[(1, 4)], other[(1, 4)])

    def test_strength_is_checked(self):
        with pytest.raises(ValueError, match=r"AUG\.COLOR_JITTER: found -1, allowed: 0 or more"):
            AugmentSettings(color_jitter=-1)


class TestEvaluation:
    def test_views_times_crops_from_one_decode(self):
        decode = FakeDecoder()
        item = dataset("test", views=2, crops=3, decode=decode)[5]
        assert item.frames.shape == (6, 3, 4, 32, 32)
        assert item.view.tolist() == [0, 1, 2, 3, 4, 5]
        assert set(item.video_id.tolist()) == {5}
        assert set(item.label.tolist()) == {2}
        numbers = [frame_numbers(clip) for clip in item.frames]
        assert numbers == [[0, 4, 8, 12]] * 3 + [[47, 51, 55, 59]] * 3
        assert decode.calls == ["v5"]

    def test_validation_is_one_centre_clip(self):
        item = dataset("val", views=5, crops=3)[0]
        assert item.frames.shape[0] == 1
        numbers = frame_numbers(item.frames[0])
        assert numbers[0] + numbers[-1] == pytest.approx(FRAMES - 1, abs=1)
        assert_same(item, dataset("val", seed=99)[0])

    def test_reversed_frames_at_test_only(self):
        sampling = SamplingSettings(num_frames=4, sampling_rate=4, reverse=True)
        assert frame_numbers(dataset("test", sampling=sampling)[0].frames[0]) == [36, 32, 28, 24]
        numbers = frame_numbers(dataset("val", sampling=sampling)[0].frames[0])
        assert numbers == sorted(numbers)

    def test_official_sampling(self):
        sampling = SamplingSettings(num_frames=4, sampling_rate=4, rule="pyslowfast")
        item = dataset("test", views=2, sampling=sampling)[0]
        # windows of 12 frames and the one after; stride 5
        assert [frame_numbers(clip) for clip in item.frames] == [[0, 5, 10, 12], [24, 29, 34, 36]]

    def test_uniform_sampling(self):
        sampling = SamplingSettings(num_frames=4, rule="uniform")
        assert frame_numbers(dataset("val", sampling=sampling)[0].frames[0]) == [7, 22, 37, 52]
        item = dataset("test", views=2, sampling=sampling)[0]
        assert [frame_numbers(clip) for clip in item.frames] == [[3, 18, 33, 48], [11, 26, 41, 56]]

    def test_interval_sampling(self):
        sampling = SamplingSettings(num_frames=4, sampling_rate=10, rule="interval")
        # a window of 40 frames, and 21 places for it; 10 less between the first point and the last
        assert frame_numbers(dataset("val", sampling=sampling)[0].frames[0]) == [10, 20, 30, 40]
        item = dataset("test", views=2, sampling=sampling)[0]
        assert [frame_numbers(clip) for clip in item.frames] == [[0, 10, 20, 30], [21, 31, 41, 51]]
        starts = {frame_numbers(dataset("train", sampling=sampling)[(epoch, 0)].frames[0])[0] for epoch in range(20)}
        assert len(starts) > 5
        assert starts <= set(range(21))

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_squashed_pictures(self, dtype):
        spatial = SpatialSettings(
            jitter_scales=(40, 48), train_crop=32, test_crop=40, flip=False, squash=True, dtype=dtype
        )
        (whole,) = dataset("test", decode=PictureDecoder(), spatial=spatial)[0].frames
        assert whole.shape == (3, 4, 40, 40)
        assert whole.dtype == getattr(torch, dtype)
        (centre,) = dataset("val", decode=PictureDecoder(), spatial=spatial)[0].frames
        assert torch.equal(centre, whole[..., 4:36, 4:36])
        (crop,) = dataset("train", decode=PictureDecoder(), spatial=spatial)[(0, 0)].frames
        assert crop.shape == (3, 4, 32, 32)

    def test_bad_video_is_reported_not_replaced(self):
        decode = FakeDecoder(bad={"v5"})
        item = dataset("test", views=2, crops=3, decode=decode)[5]
        assert item.frames.shape == (0, 3, 4, 32, 32)
        assert item.bad == ("v5: the file is empty",)
        assert decode.calls == ["v5"]

    def test_float32(self):
        spatial = SpatialSettings(jitter_scales=(32, 32), train_crop=32, test_crop=32, dtype="float32")
        decode = FakeDecoder(bad={"v1"})
        assert dataset("test", spatial=spatial)[0].frames.dtype == torch.float32
        assert dataset("test", spatial=spatial, decode=decode)[1].frames.dtype == torch.float32


class TestClipsByKey:
    """Training clips of a video that something else than (epoch, index) has chosen."""

    def test_a_clip_of_the_video(self):
        item = dataset("train").random_clip(4, "support", 3, bad=("v9: gone",))
        assert (item.label.tolist(), item.video_id.tolist(), item.view.tolist()) == ([1], [4], [0])
        assert item.frames.shape == (1, 3, 4, 32, 32)
        assert item.frames[0, 0, 0, 0, 0] % 4 == 0  # of v4
        assert item.bad == ("v9: gone",)

    def test_it_is_the_clip_of_an_item_with_that_key(self):
        settings = AugmentSettings(color_jitter=0.4)
        spatial = SpatialSettings(jitter_scales=(40, 56), train_crop=32)
        videos = dataset("train", augment=settings, spatial=spatial, decode=PictureDecoder())
        assert_same(videos.random_clip(2, 5, 2), videos[(5, 2)])

    def test_key_and_seed_determine_it(self):
        keys = [(0, "support"), (0, "query"), (1, "support"), ("support", 0), (0,), ()]
        starts = [frame_numbers(dataset("train").random_clip(4, *key).frames[0])[0] for key in keys]
        assert len(set(starts)) > 3
        assert starts == [frame_numbers(dataset("train").random_clip(4, *key).frames[0])[0] for key in keys]
        other = dataset("train", seed=8)
        assert starts != [frame_numbers(other.random_clip(4, *key).frames[0])[0] for key in keys]

    def test_a_bad_video_is_the_callers(self):
        videos = dataset("train", decode=FakeDecoder(bad={"v4"}))
        with pytest.raises(DecodeError, match="v4: the file is empty"):
            videos.random_clip(4, 0)


@pytest.mark.parametrize("mode", ["val", "test"])
class TestRandomFrames:
    def starts(self, mode, **options):
        videos = dataset(mode, count=20, random_frames=True, **options)
        return [frame_numbers(videos[index].frames[0])[0] for index in range(20)]

    def test_each_clip_has_frames_of_its_own(self, mode):
        found = self.starts(mode)
        assert len(set(found)) > 8
        assert set(found) <= set(range(FRAMES - 12))
        assert found == self.starts(mode)
        assert found != self.starts(mode, seed=8)

    @pytest.mark.parametrize("rule", ["dense", "uniform", "interval"])
    def test_they_are_those_that_training_could_draw(self, mode, rule):
        sampling = SamplingSettings(num_frames=4, sampling_rate=4, rule=rule, jitter_fps=30.0)
        videos = dataset(mode, random_frames=True, sampling=sampling)
        clips = [frame_numbers(videos[index].frames[0]) for index in range(6)]
        assert len({tuple(clip) for clip in clips}) > 3
        for clip in clips:
            steps = np.diff(clip).tolist()
            if rule == "uniform":
                assert [number // 15 for number in clip] == [0, 1, 2, 3]
            else:
                assert steps == [4, 4, 4]  # the frame rate does not jitter

    def test_the_picture_is_cut_as_ever(self, mode):
        spatial = SpatialSettings(jitter_scales=(40, 56), train_crop=32, test_crop=32)
        fixed, drawn = (
            dataset(mode, decode=PictureDecoder(), spatial=spatial, random_frames=random) for random in (False, True)
        )
        for index in range(4):
            assert_same(fixed[index], drawn[index])

    def test_training_does_not_change(self, mode):
        del mode
        assert_same(dataset("train", random_frames=True)[(2, 3)], dataset("train")[(2, 3)])

    def test_a_bad_video_is_reported(self, mode):
        item = dataset(mode, random_frames=True, decode=FakeDecoder(bad={"v1"}))[1]
        assert (len(item), item.bad) == (0, ("v1: the file is empty",))


def test_programming_errors_pass_through():
    def decode(path, plan, *, stamps=False):
        raise KeyError("oops")

    with pytest.raises(KeyError):
        dataset("train", decode=decode)[(0, 0)]
    with pytest.raises(KeyError):
        dataset("test", decode=decode)[0]


def test_paths_are_kept():
    records = [VideoRecord("a.mp4", 0), VideoRecord("dossier/été 1.avi", 1), VideoRecord("c", 0)]
    videos = VideoDataset(
        records, mode="val", sampling=SamplingSettings(), spatial=SpatialSettings(jitter_scales=(256, 256))
    )
    assert [videos.path(index) for index in range(3)] == [record.path for record in records]


@pytest.mark.parametrize(
    ("mode", "crops", "message"),
    [
        ("train", 1, "DATA.TRAIN_CROP_SIZE: 64 does not fit into the short side 32 of DATA.TRAIN_JITTER_SCALES"),
        ("test", 1, "DATA.TEST_CROP_SIZE: 64 does not fit into the short side 32 of DATA.TRAIN_JITTER_SCALES"),
    ],
)
def test_crop_larger_than_the_picture(mode, crops, message):
    spatial = SpatialSettings(jitter_scales=(32, 48), train_crop=64, test_crop=64)
    with pytest.raises(ValueError, match=message):
        dataset(mode, spatial=spatial, crops=crops)
    dataset("test", spatial=spatial, crops=3)
