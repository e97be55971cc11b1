import pytest
import torch

from slowfast.datasets.types import VideoBatch
from slowfast.visualization.predictor import Guess, LastBatch, find_videos, top_guesses

NAMES = ("surfing", "pouring tea", "chess")


def test_best_classes_first():
    logits = torch.tensor([1.0, 3.0, 2.0])
    guesses = top_guesses(logits, NAMES, k=2)
    assert [guess.name for guess in guesses] == ["pouring tea", "chess"]
    assert [guess.probability for guess in guesses] == pytest.approx(logits.softmax(0)[[1, 2]].tolist())


def test_more_than_all_classes():
    guesses = top_guesses(torch.zeros(3), NAMES, k=5)
    assert {guess.name for guess in guesses} == set(NAMES)
    assert sum(guess.probability for guess in guesses) == pytest.approx(1.0)
    assert top_guesses(torch.tensor([0.5]), ["only"], k=5) == [Guess("only", 1.0)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.mp4", "a.AVI", "notes.txt", "deep/er/c.webm"):
        (tmp_path / name).touch()
    return tmp_path


def test_folders_are_searched_in_order(folder):
    assert find_videos([str(folder)]) == [folder / "a.AVI", folder / "b.mp4", folder / "deep" / "er" / "c.webm"]


def test_files_are_taken_as_they_are(folder):
    names = [folder / "notes.txt", folder / "b.mp4"]
    assert find_videos(map(str, names)) == names


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert find_videos(["~/b.mp4"]) == [folder / "b.mp4"]


def test_what_is_not_there(folder):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"absent\.mp4: no such video or folder$"):
        find_videos([str(folder / "absent.mp4")])
    with pytest.raises(ValueError, match=r"empty: holds no video; searched for \.avi, .*\.wmv$"):
        find_videos([str(folder / "empty")])


def batch_of(video_ids, views):
    frames = torch.randint(256, (len(views), 3, 2, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    zeros = torch.zeros(len(views), dtype=torch.int64)
    return VideoBatch(frames=frames, label=zeros, video_id=torch.tensor(video_ids), view=torch.tensor(views))


def test_the_last_batch_is_remembered():
    first, second = batch_of([0, 0], [0, 1]), batch_of([1, 2, 1], [1, 0, 0])
    loader = LastBatch([first, second])
    assert len(loader) == 2
    for expected, batch in zip((first, second), loader, strict=True):
        assert batch is expected
    clips = loader.clips(1)
    assert clips.view.tolist() == [0, 1]
    assert torch.equal(clips.frames, second.frames[[2, 0]])
