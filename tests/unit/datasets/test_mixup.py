from dataclasses import replace

import numpy as np
import pytest
import torch

from slowfast.datasets.mixup import MixUp, MixUpSettings, draw_box, mixed_targets
from slowfast.utils.seed import seed_everything

CLASSES = 5


def mirror(count):
    return range(count)[::-1]


def mix(batch, *, seed=0, num_classes=CLASSES, **options):
    seed_everything(seed)
    return MixUp(settings=MixUpSettings(**options), num_classes=num_classes)(batch)


@pytest.fixture
def batch(make_batch):
    """Four clips of four classes."""
    return replace(make_batch(4, 3), label=torch.arange(4))


def share_of(mixed):
    """What each clip of four classes kept, from its targets without smoothing."""
    return mixed.weights[torch.arange(4), torch.arange(4)]


class TestTargets:
    def test_by_hand(self):
        weights = mixed_targets(torch.tensor([0, 2]), mirror(2), share=0.7, num_classes=4, smoothing=0.0)
        assert weights.tolist() == [pytest.approx([0.7, 0, 0.3, 0]), pytest.approx([0.3, 0, 0.7, 0])]
        weights = mixed_targets(torch.tensor([0, 2]), mirror(2), share=0.7, num_classes=4, smoothing=0.2)
        assert weights[0].tolist() == pytest.approx([0.05 + 0.8 * 0.7, 0.05, 0.05 + 0.8 * 0.3, 0.05])

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_sum_to_one(self, smoothing, share):
        label = torch.tensor([0, 3, 3, 1, 2])
        weights = mixed_targets(label, mirror(5), share=share, num_classes=6, smoothing=smoothing)
        assert weights.dtype == torch.float32
        assert weights.sum(dim=1).tolist() == pytest.approx([1.0] * 5)
        assert weights.min() >= 0

    def test_same_class_twice_is_one_class(self):
        weights = mixed_targets(torch.tensor([1, 1]), mirror(2), share=0.4, num_classes=3, smoothing=0.0)
        assert weights.tolist() == [pytest.approx([0, 1, 0])] * 2


class TestMixUp:
    def test_partner_is_the_mirrored_clip(self, batch):
        mixed = mix(batch, cutmix_alpha=0.0, label_smoothing=0.0)
        share = share_of(mixed)
        assert share.tolist() == pytest.approx([share[0].item()] * 4)  # one share for the batch
        frames = batch.frames.float()
        torch.testing.assert_close(mixed.frames, share[0] * frames + (1 - share[0]) * frames.flip(0))
        assert mixed.weights.sum(dim=1).tolist() == pytest.approx([1.0] * 4)
        for row, other in enumerate((3, 2, 1, 0)):
            assert mixed.weights[row, other].item() == pytest.approx(1 - share[0].item())

    def test_types_and_other_fields(self, batch):
        given = batch.frames.clone()
        mixed = mix(batch)
        assert mixed.frames.dtype == mixed.weights.dtype == torch.float32
        assert mixed.weights.shape == (4, CLASSES)
        assert mixed.frames.min() >= 0
        assert mixed.frames.max() <= 255
        assert torch.equal(mixed.video_id, batch.video_id)
        assert torch.equal(mixed.label, mixed.weights.argmax(dim=1))
        assert mixed.target is mixed.weights
        assert torch.equal(batch.frames, given)
        assert batch.weights is None

    def test_float32_frames_are_left_as_they_are(self, batch):
        exact = replace(batch, frames=batch.frames.float())
        for seed in range(4):
            mixed = mix(exact, seed=seed)
            assert torch.equal(exact.frames, batch.frames.float())
            assert torch.equal(mixed.frames, mix(batch, seed=seed).frames)

    def test_label_is_the_heavier_class(self, batch):
        labels = {tuple(mix(batch, seed=seed, cutmix_alpha=0.0).label.tolist()) for seed in range(20)}
        assert labels == {(0, 1, 2, 3), (3, 2, 1, 0)}

    @pytest.mark.parametrize("count", [1, 3])
    def test_middle_clip_mixes_with_itself(self, make_batch, count):
        batch = replace(make_batch(count, 2), label=torch.arange(count))
        for seed in range(6):
            mixed = mix(batch, seed=seed, label_smoothing=0.0)
            middle = count // 2
            torch.testing.assert_close(mixed.frames[middle], batch.frames[middle].float())
            assert mixed.weights[middle, middle].item() == pytest.approx(1.0)

    def test_follows_from_the_global_seed(self, batch):
        assert torch.equal(mix(batch, seed=3).frames, mix(batch, seed=3).frames)
        shares = {round(share_of(mix(batch, seed=seed))[0].item(), 4) for seed in range(12)}
        assert len(shares) > 8

    def test_share_does_not_depend_on_the_batch(self, batch, make_batch):
        small = replace(make_batch(2, 2), label=torch.tensor([0, 3]))
        for seed in range(8):
            weights = mix(batch, seed=seed).weights[0, [0, 3]]
            torch.testing.assert_close(mix(small, seed=seed).weights[0, [0, 3]], weights)

    def test_prob(self, batch):
        mixed = [mix(batch, seed=seed, prob=0.3, label_smoothing=0.0) for seed in range(200)]
        untouched = [m for m in mixed if torch.equal(m.frames, batch.frames.float())]
        assert 110 < len(untouched) < 170
        assert torch.equal(untouched[0].weights, torch.eye(4, CLASSES))
        smooth = mix(batch, prob=0.0, label_smoothing=0.1)
        assert smooth.weights[0].tolist() == pytest.approx([0.92, 0.02, 0.02, 0.02, 0.02])

    def test_twice_is_refused(self, batch):
        with pytest.raises(AssertionError, match="mixed already"):
            mix(mix(batch))


class TestCutMix:
    def pasted(self, mixed, batch):
        """Which pixels of each clip come from its partner, (B, T, H, W)."""
        return (mixed.frames == batch.frames.flip(0).float()).all(dim=1) & (mixed.frames != batch.frames.float()).any(
            dim=1
        )

    def test_box_is_the_same_in_all_frames_and_weighs_its_area(self, batch):
        areas = []
        for seed in range(25):
            mixed = mix(batch, seed=seed, alpha=0.0, label_smoothing=0.0)
            mask = self.pasted(mixed, batch)
            # noise clips agree in a colour here and there, never in a whole row or column
            rows, columns = mask.any(dim=-1), mask.any(dim=-2)
            assert torch.equal(rows, rows[:1, :1].expand_as(rows))
            assert torch.equal(columns, columns[:1, :1].expand_as(columns))
            area = (rows[0, 0].sum() * columns[0, 0].sum()).item() / 32**2
            assert share_of(mixed).tolist() == pytest.approx([1 - area] * 4)
            areas.append(area)
        assert min(areas) < 0.15
        assert max(areas) > 0.5

    def test_kept_pixels_are_untouched(self, batch):
        mixed = mix(batch, seed=2, alpha=0.0)
        own, other = batch.frames.float(), batch.frames.flip(0).float()
        assert ((mixed.frames == own) | (mixed.frames == other)).all()

    def test_switch(self, batch):
        def cut(seed, prob):
            mixed = mix(batch, seed=seed, switch_prob=prob)
            own, other = batch.frames.float(), batch.frames.flip(0).float()
            return ((mixed.frames == own) | (mixed.frames == other)).all().item()

        assert all(cut(seed, 1.0) for seed in range(10))
        assert not any(cut(seed, 0.0) for seed in range(10))
        assert 30 < sum(cut(seed, 0.5) for seed in range(100)) < 70

    def test_box(self):
        seed_everything(1)
        boxes = [draw_box((100, 60), 0.75) for _ in range(400)]
        sizes = {(rows[1] - rows[0], columns[1] - columns[0]) for rows, columns in boxes}
        assert max(size[0] for size in sizes) == 50  # half of each side
        assert max(size[1] for size in sizes) == 30
        assert min(size[0] for size in sizes) < 30  # cut at the border
        assert all(0 <= low <= high <= 100 for (low, high), _ in boxes)
        assert all(0 <= low <= high <= 60 for _, (low, high) in boxes)
        (top, bottom), (left, right) = draw_box((100, 60), 1.0)
        assert (bottom - top, right - left) == (0, 0)


def test_share_has_the_beta_distribution(batch):
    shares = np.array([share_of(mix(batch, seed=s, cutmix_alpha=0.0, label_smoothing=0.0))[0] for s in range(500)])
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "MIXUP.ALPHA: found -1.0, allowed: 0"),
        ({"cutmix_alpha": -1.0}, "MIXUP.CUTMIX_ALPHA: found -1.0, allowed: 0"),
        ({"alpha": 0.0, "cutmix_alpha": 0.0}, "MIXUP.ALPHA: is 0, and so is MIXUP.CUTMIX_ALPHA"),
        ({"prob": 1.1}, "MIXUP.PROB: found 1.1, allowed: from 0 to 1"),
        ({"switch_prob": -0.1}, "MIXUP.SWITCH_PROB: found -0.1, allowed: from 0 to 1"),
        ({"label_smoothing": 1.0}, "MIXUP.LABEL_SMOOTH_VALUE: found 1.0, allowed: from 0 to below 1"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        MixUpSettings(**options)


class TestGroups:
    @pytest.fixture
    def clips(self, make_batch):
        """Ten clips of ten classes."""
        return replace(make_batch(10, 3), label=torch.arange(10))

    def mixed(self, clips, *, seed=0, **options):
        return mix(clips, seed=seed, num_classes=10, label_smoothing=0.0, partner="permuted", **options)

    def test_partners_are_of_the_same_group(self, clips):
        for seed in range(10):
            weights = self.mixed(clips, seed=seed, group_size=4).weights
            for first, last in ((0, 4), (4, 8), (8, 10)):
                assert weights[first:last, first:last].sum(dim=1).tolist() == pytest.approx([1.0] * (last - first))

    def test_partners_are_a_permutation(self, clips):
        seen = set()
        for seed in range(10):
            weights = self.mixed(clips, seed=seed, alpha=0.0).weights
            assert weights.sum(dim=0).tolist() == pytest.approx([1.0] * 10)  # everybody is a partner once
            partners = (weights - torch.diag(weights.diag())).argmax(dim=1)
            own = weights.diag() == 1.0
            order = torch.where(own, torch.arange(10), partners)
            assert own.all() or sorted(order.tolist()) == list(range(10))
            seen.add(tuple(order.tolist()))
        assert len(seen) > 5

    def test_each_group_has_its_own_share_and_box(self, clips):
        shares, kinds = set(), set()
        for seed in range(24):
            mixed = self.mixed(clips, seed=seed, group_size=5)
            for span in (slice(0, 5), slice(5, 10)):
                kept = mixed.weights.diag()[span]
                moved = kept < 1
                assert kept[moved].tolist() == pytest.approx([kept.min().item()] * int(moved.sum()))
                shares.add(round(kept.min().item(), 4))
            own = (mixed.frames == mixed.frames.round()).flatten(1).all(dim=1)  # pasted, not blended
            kinds.add((own[:5].all().item(), own[5:].all().item()))
        assert len(shares) > 15
        assert len(kinds) == 4  # each group has its own coin

    @pytest.mark.parametrize("partner", ["mirrored", "permuted"])
    @pytest.mark.parametrize("group_size", [10, 11, 64])
    def test_a_group_larger_than_the_batch_is_the_batch(self, clips, partner, group_size):
        for seed in range(4):
            whole, group = (
                mix(clips, seed=seed, num_classes=10, partner=partner, group_size=size) for size in (0, group_size)
            )
            assert torch.equal(whole.frames, group.frames)
            assert torch.equal(whole.weights, group.weights)

    def test_groups_are_what_batches_of_their_own_would_be(self, clips):
        seed_everything(3)
        mixer = MixUp(settings=MixUpSettings(partner="permuted", group_size=4), num_classes=10)
        whole = mixer(clips)
        seed_everything(3)
        spans = [slice(0, 4), slice(4, 8), slice(8, 10)]
        parts = [
            mixer(
                replace(
                    clips,
                    frames=clips.frames[span],
                    label=clips.label[span],
                    video_id=clips.video_id[span],
                    view=clips.view[span],
                )
            )
            for span in spans
        ]
        assert torch.equal(whole.frames, torch.cat([part.frames for part in parts]))
        assert torch.equal(whole.weights, torch.cat([part.weights for part in parts]))

    def test_mirrored_groups(self, clips):
        weights = mix(clips, num_classes=10, cutmix_alpha=0.0, label_smoothing=0.0, group_size=3).weights
        assert [row.nonzero().flatten().tolist() for row in weights[:3]] == [[0, 2], [1], [0, 2]]
        assert weights[9].tolist() == pytest.approx([0.0] * 9 + [1.0])  # alone in its group

    def test_float32_frames_are_left_as_they_are(self, clips):
        exact = replace(clips, frames=clips.frames.float())
        for seed in range(6):
            self.mixed(exact, seed=seed, group_size=4)
            assert torch.equal(exact.frames, clips.frames.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partner": "next"}, "MIXUP.PARTNER: found 'next', allowed: 'mirrored', 'permuted'"),
        ({"group_size": 1}, "MIXUP.GROUP_SIZE: found 1, allowed: 0"),
        ({"group_size": -2}, "MIXUP.GROUP_SIZE: found -2, allowed: 0"),
    ],
)
def test_settings_of_groups_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        MixUpSettings(**options)
