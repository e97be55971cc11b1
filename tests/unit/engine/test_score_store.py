import shutil

import numpy as np
import pytest
import torch

from slowfast.engine.evaluator import ScoredBatch
from slowfast.engine.score_store import ScoreStore

K = 5
HEADER, RECORD = 32, 8 + 8 + 4 * K + 4
IDENTITY = "weights 1, split a"


def batch(*ids, num_classes=K):
    """Scores and labels that follow from the ids."""
    video_id = torch.tensor(ids, dtype=torch.int64)
    logits = torch.stack([torch.randn(num_classes, generator=torch.Generator().manual_seed(i)) for i in ids])
    return ScoredBatch(video_id=video_id, label=video_id % num_classes, logits=logits)


def open_store(folder, rank=0, **options):
    return ScoreStore(folder, **{"identity": IDENTITY, "num_classes": K, "rank": rank, **options})


def written(folder, *batches, rank=0):
    with open_store(folder, rank) as store:
        for scored in batches:
            store.append(scored)
    return folder / f"rank{rank}.bin"


def read(folder, rows=4096):
    """All chunks as one batch, and their sizes."""
    with open_store(folder, rank=99) as store:
        chunks = list(store.chunks(rows))
    video_id, label, logits = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return ScoredBatch(video_id=video_id, label=label, logits=logits), [len(chunk[0]) for chunk in chunks]


def assert_equal(found, expected):
    for name in ("video_id", "label", "logits"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name


def test_scores_come_back_bit_by_bit_in_increasing_order(tmp_path):
    written(tmp_path, batch(6, 2), batch(0))
    written(tmp_path, batch(5), batch(1, 3), rank=1)
    for rows, sizes in ((4096, [6]), (4, [4, 2]), (1, [1] * 6)):
        found, counts = read(tmp_path, rows)
        assert_equal(found, batch(0, 1, 2, 3, 5, 6))
        assert counts == sizes


def test_numbers_that_are_none_come_back_too(tmp_path):
    odd = ScoredBatch(
        video_id=torch.tensor([0]), label=torch.tensor([4]), logits=torch.tensor([[-0.0, torch.inf, -torch.inf, 0, 1]])
    )
    odd.logits[0, 3] = torch.nan
    written(tmp_path, odd)
    found, _ = read(tmp_path)
    assert found.logits.view(torch.int32).equal(odd.logits.view(torch.int32))


def test_layout_of_the_file(tmp_path):
    path = written(tmp_path, batch(3, 8))
    assert path.stat().st_size == HEADER + 2 * RECORD
    second = path.read_bytes()[HEADER + RECORD :]
    assert np.frombuffer(second, "<i8", 2).tolist() == [8, 3]
    assert np.array_equal(np.frombuffer(second, "<f4", K, offset=16), batch(8).logits[0].numpy())


def test_nothing_scored(tmp_path):
    with open_store(tmp_path) as store:
        store.append(ScoredBatch(video_id=torch.empty(0), label=torch.empty(0), logits=torch.empty(0, 0), bad=("a",)))
        assert store.scored().tolist() == []
        assert list(store.chunks()) == []


def test_scores_are_readable_while_they_are_written(tmp_path):
    with open_store(tmp_path) as own, open_store(tmp_path, rank=1) as other:
        own.append(batch(4, 1))
        assert other.scored().tolist() == [1, 4]
        other.append(batch(0))
        assert own.scored().tolist() == [0, 1, 4]


def test_an_interruption_at_any_byte_costs_the_last_record_only(tmp_path):
    whole = written(tmp_path / "whole", batch(0), batch(2)).read_bytes()
    for size in range(len(whole)):
        folder = tmp_path / "cut"
        folder.mkdir()
        (folder / "rank0.bin").write_bytes(whole[:size])
        ScoreStore.prepare(folder, identity=IDENTITY, num_classes=K)
        kept = [0, 2][: max(0, size - HEADER) // RECORD]
        with open_store(folder) as store:
            assert store.scored().tolist() == kept
            store.append(batch(7))
            store.append(batch(2))
        found, _ = read(folder)
        assert_equal(found, batch(*sorted({*kept, 2, 7})))
        shutil.rmtree(folder)


def test_an_interrupted_process_that_never_comes_back(tmp_path):
    """A test that goes on with fewer processes leaves the file of the missing one as it is."""
    path = written(tmp_path, batch(1, 4, 5), rank=3)
    path.write_bytes(path.read_bytes()[:-1])
    written(tmp_path, batch(0, 5))
    for rows in (1, 4096):
        assert_equal(read(tmp_path, rows)[0], batch(0, 1, 4, 5))


def test_an_end_that_never_reached_the_disk_is_dropped(tmp_path):
    path = written(tmp_path, batch(0), batch(1))
    with path.open("ab") as file:
        file.write(bytes(3 * RECORD + 5))  # zeros: the size was written, the content not
    written(tmp_path, batch(2))
    assert_equal(read(tmp_path)[0], batch(0, 1, 2))


def test_damage_in_the_middle_is_not_dropped_in_silence(tmp_path):
    path = written(tmp_path, batch(0, 1, 2))
    content = bytearray(path.read_bytes())
    content[HEADER + RECORD + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^.*rank0\.bin: record 1 is damaged, and others follow; remove the file$"):
        open_store(tmp_path)


def test_damage_is_found_across_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("slowfast.engine.score_store._ROWS_PER_READ", 2)
    path = written(tmp_path, batch(0, 1, 2, 3, 4))
    content = bytearray(path.read_bytes())
    assert_equal(read(tmp_path)[0], batch(0, 1, 2, 3, 4))
    content[HEADER + RECORD + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="record 1 is damaged"):
        open_store(tmp_path)
    path.write_bytes(content[: HEADER + 2 * RECORD])
    assert read(tmp_path)[0].video_id.tolist() == [0]


def test_the_same_video_twice_counts_once(tmp_path):
    written(tmp_path, batch(0, 1), batch(1))
    written(tmp_path, batch(1, 2), rank=1)
    assert_equal(read(tmp_path)[0], batch(0, 1, 2))
    with open_store(tmp_path) as store:
        assert store.scored().tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"not scores", b"PK\x03\x04" + bytes(500), b"x"])
def test_a_foreign_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "rank0.bin"
    path.write_bytes(content)
    for use in (
        lambda: ScoreStore.prepare(tmp_path, identity=IDENTITY, num_classes=K),
        lambda: open_store(tmp_path),
        lambda: open_store(tmp_path, rank=1).scored(),
    ):
        with pytest.raises(
            ValueError, match=r"^\S*rank0\.bin: is not a file of scores; it begins with .*; move it away$"
        ):
            use()
        assert path.read_bytes() == content


@pytest.mark.parametrize("other", [{"identity": "weights 2"}, {"num_classes": K + 1}])
def test_scores_of_another_identity(tmp_path, other):
    written(tmp_path, batch(0))
    written(tmp_path, batch(1), rank=11)
    (tmp_path / "ranking.bin").write_bytes(b"not ours")
    changed = {"identity": IDENTITY, "num_classes": K, **other}
    message = r"^\S*rank0\.bin: holds the scores of another model, split or configuration; remove it$"
    with pytest.raises(ValueError, match=message):
        ScoreStore(tmp_path, **changed)
    ScoreStore.prepare(tmp_path, **changed)
    assert [path.name for path in tmp_path.iterdir()] == ["ranking.bin"]
    with ScoreStore(tmp_path, **changed) as store:
        assert store.scored().tolist() == []


def test_scores_of_the_same_identity_are_kept(tmp_path):
    written(tmp_path, batch(0))
    ScoreStore.prepare(tmp_path, identity=IDENTITY, num_classes=K)
    assert_equal(read(tmp_path)[0], batch(0))


def test_a_folder_that_is_not_there_yet_holds_nothing(tmp_path):
    ScoreStore.prepare(tmp_path / "a" / "b", identity=IDENTITY, num_classes=K)
    with open_store(tmp_path / "a" / "b") as store:
        assert store.scored().tolist() == []


def test_ids_beyond_the_split(tmp_path):
    written(tmp_path, batch(0, 3))
    with open_store(tmp_path, num_videos=4) as store:
        assert store.scored().tolist() == [0, 3]
        with pytest.raises(AssertionError, match=r"ids \[4\]"):
            store.append(batch(4))
        with pytest.raises(AssertionError, match=r"labels \[5\]"):
            store.append(ScoredBatch(video_id=torch.tensor([1]), label=torch.tensor([K]), logits=torch.zeros(1, K)))
    message = r"rank0\.bin: video 3 with label 3 is not of this split of 3 videos and 5 classes; remove the file$"
    with pytest.raises(ValueError, match=message):
        open_store(tmp_path, num_videos=3)


def test_remove(tmp_path):
    folder = tmp_path / "scores"
    written(folder, batch(1), rank=1)
    store = open_store(folder)
    store.append(batch(0))
    store.remove()
    assert not folder.exists()
    store = open_store(folder)
    (folder / "notes.txt").write_text("mine")
    store.remove()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.fixture
def reader(tmp_path):
    """Of two files; videos 5 and 2 are in both."""
    written(tmp_path, batch(6, 2), batch(0, 5))
    written(tmp_path, batch(5), batch(1, 30, 2), rank=1)
    with open_store(tmp_path, rank=99) as store:
        return store.reader()


@pytest.mark.parametrize("ids", [[0, 1, 2, 5, 6, 30], [30, 0, 5], [2], [1, 30], [6, 6, 1, 6]])
def test_videos_in_any_order(reader, ids):
    found = ScoredBatch(**dict(zip(("video_id", "label", "logits"), reader.read(np.array(ids)), strict=True)))
    assert_equal(found, batch(*ids))


def test_a_reader_knows_which_videos_there_are(reader):
    assert reader.video_id.tolist() == [0, 1, 2, 5, 6, 30]
    video_id, label, logits = reader.read(np.empty(0, dtype=np.int64))
    assert (len(video_id), len(label), logits.shape) == (0, 0, (0, K))


@pytest.mark.parametrize("ids", [[3], [0, 29], [-1], [31], [30, 99, 0]])
def test_videos_without_scores(reader, ids):
    with pytest.raises(AssertionError, match="videos without scores"):
        reader.read(np.array(ids))


def test_a_reader_of_nothing(tmp_path):
    with open_store(tmp_path) as store:
        reader = store.reader()
    assert reader.video_id.tolist() == []
    with pytest.raises(AssertionError, match="videos without scores"):
        reader.read(np.array([0]))


def test_a_reader_stays_in_front_of_an_interrupted_end(tmp_path):
    path = written(tmp_path, batch(4, 1))
    path.write_bytes(path.read_bytes() + b"half a record")
    with open_store(tmp_path, rank=1) as store:
        reader = store.reader()
    assert reader.video_id.tolist() == [1, 4]
    video_id, _, logits = reader.read(np.array([4, 1]))
    assert torch.equal(logits, batch(4, 1).logits)
    assert video_id.tolist() == [4, 1]


def test_what_was_read_can_be_changed(reader):
    """It is a copy: nothing of it is mapped from the file."""
    logits = reader.read(np.array([1, 6]))[2]
    logits += 1
    assert torch.equal(reader.read(np.array([1, 6]))[2] + 1, logits)
