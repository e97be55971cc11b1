from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method
from slowfast.methods.explanation import Explanation, MatchView, PatchView
from slowfast.visualization.explain_videos import ClipFormat, Explainer
from slowfast.visualization.predictor import Guess

CLIPS = ClipFormat(num_frames=2, side_px=8, views=5, crops=3)
CPU = torch.device("cpu")


class Brightness(Method):
    """Attends to what is bright, in three layers; remembers what it was shown."""

    def __init__(self):
        super().__init__(pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
        self.seen = []

    def set_label_set(self, label_set, bank):
        pass

    training_forward = eval_forward = frame_features = None

    def explain(self, batch):
        self.seen.append(batch)
        light = batch.frames.float().mean(1).unflatten(-1, (2, 4)).unflatten(-3, (2, 4)).mean((-1, -3)) / 2000
        off = torch.zeros(light.shape[1:], dtype=torch.bool)
        views = [[PatchView(layer=n, attention=clip, chosen=off, what="") for n in (1, 2, 3)] for clip in light]
        return [Explanation(tuple(each)) for each in views]


class Matching(Brightness):
    """Matches the first frame to the first descriptor, the second to the second."""

    def explain(self, batch):
        plan, cosines = torch.tensor([[0.4, 0.1], [0.1, 0.4]]), torch.tensor([[0.3, 0.2], [0.2, 0.25]])
        fields = {"class_name": "surfing", "texts": ("a board", "a wave"), "plan": plan, "cosines": cosines}
        views = tuple(MatchView(kind=kind, **fields) for kind in ("spatial", "temporal"))
        return [Explanation(matches=views)] * len(batch)


class Silent(Brightness):
    """Defines explain, but has nothing to say."""

    def explain(self, batch):
        return [Explanation()] * len(batch)


@pytest.fixture(autouse=True)
def _concrete(monkeypatch):
    for method in (Brightness, Matching, Silent):
        monkeypatch.setattr(method, "__abstractmethods__", frozenset())


def batch_of(video_ids, views):
    generator = torch.Generator().manual_seed(0)
    return VideoBatch(
        frames=torch.randint(256, (len(views), 3, 2, 8, 8), generator=generator, dtype=torch.uint8),
        label=torch.zeros(len(views), dtype=torch.int64),
        video_id=torch.tensor(video_ids),
        view=torch.tensor(views),
    )


def test_every_clip_of_a_video_gets_two_files(tmp_path):
    method = Brightness()
    explainer = Explainer(
        method, [Path("x/a b.mp4"), Path("y/a b.mp4")], clips=CLIPS, folder=tmp_path / "out", device=CPU
    )
    assert [tuple(batch.frames.shape) for batch in method.seen] == [(1, 3, 2, 8, 8)]
    batch = batch_of([1, 1], [0, 14])
    drawn = explainer.draw(batch, best=Guess("surfing", 0.5))
    files = drawn.files
    assert drawn.lines == ()
    names = ["a_b-2_view01.png", "a_b-2_view01.mp4", "a_b-2_view15.png", "a_b-2_view15.mp4"]
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [f"out/{name}" for name in names]
    assert all(file.stat().st_size > 1000 for file in files)
    assert torch.equal(torch.cat([seen.frames for seen in method.seen[1:]]), batch.frames)


def test_lines_say_what_the_frames_of_each_clip_were_matched_to(tmp_path):
    explainer = Explainer(Matching(), [Path("a.mp4")], clips=CLIPS, folder=tmp_path, device=CPU)
    drawn = explainer.draw(batch_of([0, 0], [0, 14]), best=Guess("surfing", 0.5))
    assert len(drawn.files) == 4
    rows = ["    1   80.0%   0.300  1 a board", "    2   80.0%   0.250  2 a wave"]
    headings = [
        f"{clip}: {kind} descriptors of surfing; "
        for clip in ("clip 1 of 5, crop 1 of 3", "clip 5 of 5, crop 3 of 3")
        for kind in ("spatial", "temporal")
    ]
    assert len(drawn.lines) == 4 * 4
    for number, heading in enumerate(headings):
        first, _, *rest = drawn.lines[4 * number : 4 * number + 4]
        assert first.startswith(heading)
        assert rest == rows
    single = Explainer(Matching(), [Path("a.mp4")], clips=replace(CLIPS, views=1, crops=1), folder=tmp_path, device=CPU)
    lines = single.draw(batch_of([0], [0]), best=Guess("surfing", 0.5)).lines
    assert next(line for line in lines if "descriptors" in line).startswith("spatial descriptors of surfing; ")


def test_titles_say_which_clip(tmp_path):
    title = Explainer(Brightness(), [Path("x/a.mp4")], clips=CLIPS, folder=tmp_path, device=CPU)._title
    assert title(0, 7, Guess("surfing", 0.934)) == (
        "a.mp4, clip 3 of 5, crop 2 of 3\nbest class of the video: surfing (93.4%)"
    )
    single = replace(CLIPS, views=1, crops=1)
    title = Explainer(Brightness(), [Path("x/a.mp4")], clips=single, folder=tmp_path, device=CPU)._title
    assert title(0, 0, Guess("surfing", 1.0)).startswith("a.mp4\n")


def test_mistakes_end_it_at_the_start(tmp_path):
    with pytest.raises(ValueError, match=r"^DEMO\.EXPLAIN_LAYERS: there is no layer 4 to draw; allowed: 1 to 3$"):
        Explainer(Brightness(), [], clips=CLIPS, folder=tmp_path / "out", layers=[4], device=CPU)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"^METHOD: Silent has nothing to explain; allowed: "):
        Explainer(Silent(), [], clips=CLIPS, folder=tmp_path / "out", device=CPU)
    none = "none, the method has no view of layers"
    with pytest.raises(ValueError, match=rf"^DEMO\.EXPLAIN_LAYERS: there is no layer 1 to draw; allowed: {none}$"):
        Explainer(Matching(), [], clips=CLIPS, folder=tmp_path / "out", layers=[1], device=CPU)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        Explainer(Brightness(), [], clips=CLIPS, folder=tmp_path / "file", device=CPU)
