import pytest
import torch
from torch.utils.data import DataLoader

from slowfast.config.defaults import get_cfg
from slowfast.datasets import decode
from slowfast.datasets.build import (
    build_dataset,
    build_mixup,
    build_pool,
    build_pool_loader,
    build_split_loader,
    build_video_loader,
)
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Split

LABELS = LabelSet.from_names(["a", "b"])


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.RNG_SEED = 3
    cfg.TRAIN.BATCH_SIZE = 4
    cfg.TEST.BATCH_SIZE = 12
    cfg.DATA_LOADER.NUM_WORKERS = 0
    cfg.DATA.PATH_LABEL_SEPARATOR = ","
    cfg.DATA.NUM_FRAMES = 4
    cfg.DATA.SAMPLING_RATE = 4
    cfg.DATA.TRAIN_JITTER_SCALES = [40, 48]
    cfg.DATA.TRAIN_CROP_SIZE = 32
    cfg.DATA.TEST_CROP_SIZE = 40
    return cfg


@pytest.fixture
def make_split(tmp_path, numbered_mp4):
    def make(mode, *, rows=8, views=1, crops=1):
        csv = tmp_path / f"{mode}.csv"
        # one file under two names, since a video has one label
        for label in range(2):
            if not (tmp_path / f"{label}.mp4").exists():
                (tmp_path / f"{label}.mp4").symlink_to(numbered_mp4)
        csv.write_text("".join(f"{tmp_path / str(row % 2)}.mp4,{row % 2}\n" for row in range(rows)))
        return Split(name=mode, csv=csv, label_set=LABELS, mode=mode, views=views, crops=crops)

    return make


def test_train_batch_is_the_share_of_one_process(cfg, make_split):
    split = make_split("train")
    parts = [build_split_loader(split, cfg=cfg, rank=rank, world_size=2, local_world_size=2) for rank in range(2)]
    assert [len(loader) for loader in parts] == [2, 2]
    for loader in parts:
        loader.batch_sampler.set_epoch(1)
    batches = [list(loader) for loader in parts]
    assert batches[0][0].frames.shape == (2, 3, 4, 32, 32)
    ids = torch.cat([batch.video_id for part in batches for batch in part])
    assert sorted(ids.tolist()) == list(range(8))


def test_val_batch_has_the_training_size(cfg, make_split):
    loader = build_split_loader(make_split("val", rows=5), cfg=cfg, rank=1, world_size=2, local_world_size=2)
    assert [batch.video_id.tolist() for batch in loader] == [[1, 3]]
    assert next(iter(loader)).frames.shape[-1] == 32


def test_test_batch_counts_clips_and_holds_whole_videos(cfg, make_split):
    pool = build_pool([make_split("test", rows=3, views=2, crops=3)], cfg=cfg)
    batches = list(build_pool_loader(pool, cfg=cfg))
    assert [batch.video_id.tolist() for batch in batches] == [[0] * 6 + [1] * 6, [2] * 6]
    assert batches[0].frames.shape == (12, 3, 4, 40, 40)
    cfg.TEST.BATCH_SIZE = 2
    assert [len(batch) for batch in build_pool_loader(pool, cfg=cfg)] == [6, 6, 6]
    assert [batch.video_id.tolist() for batch in build_pool_loader(pool, cfg=cfg, skip=[0, 2])] == [[1] * 6]


def test_settings_reach_the_clips(cfg, make_split):
    split = make_split("train")
    cfg.AUG.NUM_SAMPLE = 2
    cfg.DATA.CLIP_DTYPE = "float32"
    cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE = [0.2, 0.8]
    cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE = [0.75, 1.3333]
    item = build_dataset(split, cfg=cfg)[(0, 0)]
    assert item.frames.shape == (2, 3, 4, 32, 32)
    assert item.frames.dtype == torch.float32
    cfg.DATA.REVERSE_INPUT_CHANNEL = True
    swapped = build_dataset(split, cfg=cfg)[(0, 0)]
    assert torch.equal(swapped.frames, item.frames.flip(1))


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_kept_frames_change_nothing(mode, cfg, make_split, tmp_path, monkeypatch):
    def batches():
        split = make_split(mode, views=2 if mode == "test" else 1)
        if mode == "test":
            return list(build_pool_loader(build_pool([split], cfg=cfg), cfg=cfg))
        return list(build_split_loader(split, cfg=cfg))

    plain = batches()
    cfg.DATA.CACHE_DIR = str(tmp_path / "cache")
    for _ in range(2):
        for batch, expected in zip(batches(), plain, strict=True):
            assert torch.equal(batch.frames, expected.frames)
            assert torch.equal(batch.video_id, expected.video_id)
    assert len(list((tmp_path / "cache").glob("*.frames"))) == 2
    monkeypatch.setattr(decode, "opened", None)  # nothing is decoded now
    assert len(batches()) == len(plain)


def test_augmentation_reaches_the_clips(cfg, make_split):
    split = make_split("train")
    cfg.AUG.NUM_SAMPLE = 2
    plain = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert torch.equal(build_dataset(split, cfg=cfg)[(0, 0)].frames, plain)
    cfg.AUG.ENABLE = True
    cfg.AUG.AA_TYPE, cfg.AUG.COLOR_JITTER, cfg.AUG.RE_PROB = "", 0.0, 0.0
    assert torch.equal(build_dataset(split, cfg=cfg)[(0, 0)].frames, plain)
    cfg.AUG.RE_PROB, cfg.AUG.RE_MODE, cfg.AUG.RE_SPLIT = 1.0, "const", True
    cfg.DATA.MEAN = [0.2, 0.4, 0.6]
    erased = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert torch.equal(erased[0], plain[0])
    changed = (erased[1] != plain[1]).any(dim=0)
    assert erased[1][:, changed].unique(dim=1).flatten().tolist() == [51, 102, 153]
    cfg.DATA.REVERSE_INPUT_CHANNEL = True  # the mean is that of the channels as they travel
    swapped = build_dataset(split, cfg=cfg)[(0, 0)].frames[1]
    assert swapped[:, changed].unique(dim=1).flatten().tolist() == [51, 102, 153]
    cfg.AUG.COLOR_JITTER = 0.9
    assert not torch.equal(build_dataset(split, cfg=cfg)[(0, 0)].frames[0], plain[0])
    cfg.AUG.AA_TYPE = "rand-m9-n4-p1-inc1"
    assert not torch.equal(build_dataset(split, cfg=cfg)[(0, 0)].frames[0], plain[0])
    val = build_dataset(make_split("val"), cfg=cfg)[0]
    cfg.AUG.ENABLE = False
    assert torch.equal(build_dataset(make_split("val"), cfg=cfg)[0].frames, val.frames)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("AA_TYPE", "augmix-m3", r"^AUG\.AA_TYPE: found 'augmix-m3'"),
        ("INTERPOLATION", "area", r"^AUG\.INTERPOLATION: found 'area'"),
        ("RE_MODE", "zero", r"^AUG\.RE_MODE: found 'zero'"),
        ("RE_SPLIT", True, r"^AUG\.RE_SPLIT: True keeps the first crop, and AUG\.NUM_SAMPLE 1 makes no other"),
    ],
)
def test_augmentation_is_checked_at_the_start(cfg, make_split, key, value, message):
    cfg.AUG[key] = value
    split = make_split("train")
    build_split_loader(split, cfg=cfg)
    cfg.AUG.ENABLE = True
    with pytest.raises(ValueError, match=message):
        build_split_loader(split, cfg=cfg)


def test_recipe_of_tc_clip_reaches_the_clips(cfg, make_split):
    split = make_split("train")
    plain = build_dataset(split, cfg=cfg)[(0, 0)].frames
    cfg.DATA.FRAME_SAMPLING = "uniform"
    sampled = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert not torch.equal(sampled, plain)
    cfg.DATA.TRAIN_CROP_SCALES = [1, 0.75]
    cropped = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert cropped.shape == plain.shape
    assert not torch.equal(cropped, sampled)
    cfg.AUG.AA_TYPE, cfg.AUG.COLOR_JITTER, cfg.AUG.RE_PROB = "", 0.0, 0.0
    cfg.AUG.GRAY_PROB = 1.0
    assert torch.equal(build_dataset(split, cfg=cfg)[(0, 0)].frames, cropped)  # AUG.ENABLE is off
    cfg.AUG.ENABLE = True
    gray = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert torch.equal(gray[:, 0], gray[:, 2])
    cfg.AUG.FRAME_JITTER_PROB = 1.0
    cfg.AUG.FRAME_JITTER = [0.9, 0, 0, 0]
    assert not torch.equal(build_dataset(split, cfg=cfg)[(0, 0)].frames, gray)
    val = build_dataset(make_split("val"), cfg=cfg)[0]
    cfg.AUG.ENABLE, cfg.DATA.TRAIN_CROP_SCALES = False, []
    assert torch.equal(build_dataset(make_split("val"), cfg=cfg)[0].frames, val.frames)


def test_recipe_of_clip_fsar_reaches_the_clips(cfg, make_split):
    split = make_split("train")
    plain = build_dataset(split, cfg=cfg)[(0, 0)].frames
    cfg.DATA.FRAME_SAMPLING = "interval"
    sampled = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert not torch.equal(sampled, plain)
    cfg.DATA.SQUASH = True
    squashed = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert squashed.shape == plain.shape
    assert not torch.equal(squashed, sampled)
    whole = build_dataset(make_split("test"), cfg=cfg)[0].frames
    assert whole.shape == (1, 3, 4, 40, 40)
    cfg.AUG.ENABLE, cfg.AUG.AA_TYPE, cfg.AUG.COLOR_JITTER, cfg.AUG.RE_PROB = True, "", 0.0, 0.0
    cfg.AUG.FRAME_JITTER_PROB = cfg.AUG.GRAY_PROB = 1.0
    frame = build_dataset(split, cfg=cfg)[(0, 0)].frames
    cfg.AUG.JITTER_PER = "clip"
    clip = build_dataset(split, cfg=cfg)[(0, 0)].frames
    assert torch.equal(clip[:, 0], clip[:, 2])
    assert not torch.equal(clip, frame)


def test_partners_and_groups_reach_mixup(cfg):
    cfg.MIXUP.ENABLE = True
    assert (build_mixup(cfg, 7).settings.partner, build_mixup(cfg, 7).settings.group_size) == ("mirrored", 0)
    cfg.MIXUP.PARTNER, cfg.MIXUP.GROUP_SIZE = "permuted", 4
    assert (build_mixup(cfg, 7).settings.partner, build_mixup(cfg, 7).settings.group_size) == ("permuted", 4)


def test_mixup_takes_the_classes_of_the_split(cfg):
    assert build_mixup(cfg, 7) is None
    cfg.MIXUP.ENABLE = True
    cfg.MIXUP.SWITCH_PROB = 0.25
    mix = build_mixup(cfg, 7)
    assert (mix.num_classes, mix.settings.switch_prob, mix.settings.label_smoothing) == (7, 0.25, 0.1)
    cfg.MIXUP.ALPHA = cfg.MIXUP.CUTMIX_ALPHA = 0.0
    with pytest.raises(ValueError, match=r"^MIXUP\.ALPHA: is 0"):
        build_mixup(cfg, 7)


def test_making_an_iterator_leaves_the_global_generator_alone(cfg, make_split):
    loader = build_split_loader(make_split("val"), cfg=cfg)
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_read_real_files(cfg, make_split):
    split = make_split("train")
    alone = list(build_split_loader(split, cfg=cfg))
    cfg.DATA_LOADER.NUM_WORKERS = 2
    loader = build_split_loader(split, cfg=cfg)
    assert isinstance(loader, DataLoader)
    assert loader.persistent_workers
    for one, other in zip(alone, loader, strict=True):
        assert torch.equal(one.frames, other.frames)


def test_loose_files(cfg, numbered_mp4):
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 2, 1
    loader = build_video_loader([numbered_mp4, numbered_mp4], cfg=cfg)
    assert [(batch.video_id.tolist(), batch.view.tolist()) for batch in loader] == [([0, 0], [0, 1]), ([1, 1], [0, 1])]


def test_missing_first_video_is_refused_at_once(cfg, tmp_path):
    csv = tmp_path / "train.csv"
    csv.write_text("\nnone/a.mp4,0\n")
    cfg.DATA.PATH_PREFIX = str(tmp_path)
    with pytest.raises(ValueError, match="no such video") as caught:
        build_split_loader(Split(name="train", csv=csv, label_set=LABELS, mode="train"), cfg=cfg)
    assert str(caught.value) == (
        f"{csv}:2: no such video {tmp_path}/none/a.mp4 (DATA.PATH_PREFIX is {str(tmp_path)!r})"
    )


def test_unknown_decoder(cfg, make_split):
    cfg.DATA.DECODING_BACKEND = "pyavv"
    with pytest.raises(ValueError, match=r"DATA\.DECODING_BACKEND: unknown value 'pyavv'"):
        build_dataset(make_split("val"), cfg=cfg)
