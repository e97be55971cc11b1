import numpy as np
import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.engine.episodes import ClipMemo

ROW_BYTES = 2 * 4 + 8


def described(clips):
    """What a head might keep of clips, of two types and shapes; row by row it follows from the id."""
    ids = torch.from_numpy(clips)
    return {"a": torch.stack((ids + 0.5, -ids.float()), dim=1), "b": ids * 10}


class Compute:
    """Keeps the ids that it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, clips):
        assert clips.dtype == np.int64
        assert len(set(clips.tolist())) == len(clips) > 0
        self.asked.append(clips.tolist())
        return described(clips)


requests = st.lists(
    st.lists(st.integers(0, 9), min_size=1, max_size=8) | st.lists(st.integers(0, 60), min_size=20, max_size=40),
    min_size=1,
    max_size=12,
)
bounds = st.integers(0, 12)


@given(requests, bounds)
def test_rows_are_those_of_the_clips_whatever_is_remembered(calls, bound):
    compute = Compute()
    memo = ClipMemo(compute, max_bytes=bound * ROW_BYTES)
    for call in calls:
        clips = np.array(call, dtype=np.int64)
        clips = clips.reshape(2, -1) if len(call) % 2 == 0 else clips
        found, expected = memo.rows(clips), described(clips.ravel())
        assert torch.equal(found["a"], expected["a"].view(*clips.shape, 2))
        assert torch.equal(found["b"], expected["b"].view(clips.shape))


@given(requests, bounds)
def test_what_was_asked_for_last_is_remembered(calls, bound):
    """As many of the last calls as fit; and all that a single call asks for."""
    compute = Compute()
    memo = ClipMemo(compute, max_bytes=bound * ROW_BYTES)
    for end, call in enumerate(calls, start=1):
        before = len(compute.asked)
        memo.rows(np.array(call))
        new = [clip for asked in compute.asked[before:] for clip in asked]
        kept: set[int] = set()
        for earlier in calls[: end - 1][::-1]:
            if len(kept | set(earlier)) > bound:
                break
            kept |= set(earlier)
        assert not kept & set(new)
        assert set(new) <= set(call)
        before = len(compute.asked)
        memo.rows(np.array(call))
        assert len(compute.asked) == before


@given(requests, bounds)
def test_memory_is_bounded(calls, bound):
    memo = ClipMemo(Compute(), max_bytes=bound * ROW_BYTES + ROW_BYTES - 1)
    most = bound
    for call in calls:
        memo.rows(np.array(call))
        most = max(most, len(set(call)))
        held = sum(table.nbytes for table in memo._tables.values())
        assert held <= most * ROW_BYTES


@given(requests)
def test_with_room_for_all_every_clip_is_computed_once(calls):
    compute = Compute()
    memo = ClipMemo(compute, max_bytes=1e12)
    for call in calls:
        memo.rows(np.array(call))
    assert sum(map(len, compute.asked)) == len({clip for call in calls for clip in call})
