"""Heads against loops over frames, supports and cells, written in plain Python."""

import math

import pytest
import torch

from slowfast.models.episode_heads import OtamHead, PrototypeHead, alignment_length

E, WAY, SHOT, QUERIES, FRAMES, WIDTH = 3, 3, 2, 4, 5, 6
SMOOTHING = 0.3
HEADS = {"prototype": PrototypeHead(), "otam": OtamHead(smoothing=SMOOTHING)}


def videos(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, FRAMES, WIDTH, generator=generator, dtype=dtype)


@pytest.fixture
def support():
    return videos(E, WAY, SHOT)


@pytest.fixture
def query():
    return videos(E, QUERIES, seed=1)


def scores(head, support, query):
    """As the engine does: every video is described by itself, then the episodes are scored."""

    def described(clips):
        rows = head.describe(clips.flatten(0, -3), torch.zeros(clips.shape[:-2].numel(), dtype=torch.long))
        return {name: row.unflatten(0, clips.shape[:-2]) for name, row in rows.items()}

    classes = torch.arange(support.shape[1]).expand(support.shape[:2])
    return head.score(described(support), described(query), classes)


def unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def mean(vectors):
    return [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]


def cosine(one, other):
    return sum(a * b for a, b in zip(unit(one), unit(other), strict=True))


def softmin(*values):
    least = min(values)
    return least - SMOOTHING * math.log(sum(math.exp((least - value) / SMOOTHING) for value in values))


def alignment(distances):
    """The recurrence of `otam`, cell by cell: rows 0 to R-1, columns 0 to C+1, the outer two of zeros."""
    rows, columns = len(distances), len(distances[0])
    cells = [[0.0, *row, 0.0] for row in distances]
    a = {(0, 0): 0.0}
    for m in range(1, columns + 2):
        a[0, m] = cells[0][m] + a[0, m - 1]
    for row in range(1, rows):
        a[row, 0] = 0.0
        a[row, 1] = cells[row][1] + softmin(a[row - 1, 0], a[row - 1, 1], a[row, 0])
        for m in range(2, columns + 1):
            a[row, m] = cells[row][m] + softmin(a[row - 1, m - 1], a[row, m - 1])
        end = columns + 1
        a[row, end] = softmin(a[row - 1, columns], a[row - 1, end], a[row, columns])
    return a[rows - 1, columns + 1]


def prototype_score(query, supports):
    """Of one class: query (T, D) and supports (S, T, D), as lists."""
    return cosine(mean(query), mean([unit(mean(video)) for video in supports]))


def otam_score(query, supports):
    prototype = [mean([unit(video[frame]) for video in supports]) for frame in range(FRAMES)]
    distances = [[1 - cosine(one, other) for other in prototype] for one in query]
    back = [list(column) for column in zip(*distances, strict=True)]
    return -(alignment(distances) + alignment(back))


LOOPS = {"prototype": prototype_score, "otam": otam_score}


@pytest.mark.parametrize("name", HEADS)
def test_scores_against_a_loop(name, support, query):
    found = scores(HEADS[name], support, query)
    assert found.shape == (E, QUERIES, WAY)
    expected = [
        [[LOOPS[name](video, supports) for supports in classes] for video in queries]
        for classes, queries in zip(support.tolist(), query.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def assert_scores(head, support, query, expected):
    torch.testing.assert_close(scores(head, support, query), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", HEADS)
class TestInvariance:
    def test_length_of_the_features(self, name, support, query):
        """Every frame of a video as long as the others: that is what the mean over frames sees."""
        head = HEADS[name]
        expected = scores(head, support, query)
        lengths = torch.linspace(0.1, 9, E * WAY * SHOT, dtype=torch.float64).view(E, WAY, SHOT, 1, 1)
        assert_scores(head, support * lengths, query * 1e3, expected)
        assert_scores(head, support * 1e-3, query, expected)

    def test_order_of_the_supports(self, name, support, query):
        assert_scores(HEADS[name], support.flip(2), query, scores(HEADS[name], support, query))

    def test_classes_and_queries_stand_where_they_stood(self, name, support, query):
        head, order = HEADS[name], torch.tensor([2, 0, 1])
        expected = scores(head, support, query)
        assert_scores(head, support[:, order], query, expected[:, :, order])
        assert_scores(head, support, query.flip(1), expected.flip(1))

    def test_a_rotation_of_the_space(self, name, support, query):
        rotation, _ = torch.linalg.qr(
            torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        )
        assert_scores(HEADS[name], support @ rotation, query @ rotation, scores(HEADS[name], support, query))

    def test_other_queries_and_classes_change_nothing(self, name, support, query):
        expected = scores(HEADS[name], support, query)
        assert_scores(HEADS[name], support[:, :2], query[:, 1:2], expected[:, 1:2, :2])

    def test_several_episodes_are_each_alone(self, name, support, query):
        head = HEADS[name]
        alone = [scores(head, support[number : number + 1], query[number : number + 1]) for number in range(E)]
        assert_scores(head, support, query, torch.cat(alone))

    def test_a_query_is_nearest_to_itself(self, name, support, query):
        del query
        found = scores(HEADS[name], support[:, :, :1], support[:, :, 0])
        assert torch.equal(found.argmax(dim=2), torch.arange(WAY).expand(E, WAY))

    def test_half_precision_is_widened(self, name, support, query):
        narrow = support.bfloat16(), query.bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            rows = HEADS[name].describe(narrow[1].flatten(0, 1), torch.zeros(E * QUERIES, dtype=torch.long))
        assert {row.dtype for row in rows.values()} == {torch.float32}
        found = scores(HEADS[name], *narrow)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), scores(HEADS[name], support, query), rtol=0.05, atol=0.1)


def test_a_prototype_of_means_does_not_see_the_order_of_frames(support, query):
    head, order = HEADS["prototype"], torch.randperm(FRAMES, generator=torch.Generator().manual_seed(2))
    assert_scores(head, support[..., order, :], query.flip(-2), scores(head, support, query))


def test_an_alignment_sees_the_order_of_frames(support, query):
    head = HEADS["otam"]
    expected = scores(head, support, query)
    assert (scores(head, support.flip(-2), query) - expected).abs().min() > 1e-3
    # but not which of both is the query
    backwards = scores(head, support[:, :, :1], support[:, :, 0])
    torch.testing.assert_close(backwards, backwards.transpose(1, 2), rtol=1e-10, atol=1e-10)


def test_a_video_that_runs_backwards_is_farther(support, query):
    del query
    head = OtamHead(smoothing=0.05)
    forwards = scores(head, support[:, :, :1], support[:, :, 0]).diagonal(dim1=1, dim2=2)
    reverse = scores(head, support[:, :, :1], support[:, :, 0].flip(-2)).diagonal(dim1=1, dim2=2)
    assert (forwards > reverse + 0.5).all()


def test_smoothing_reaches_the_alignment(support, query):
    found = [scores(OtamHead(smoothing=smoothing), support, query) for smoothing in (0.1, 0.5)]
    assert (found[0] - found[1]).abs().min() > 1e-2
    with pytest.raises(ValueError, match=r"^smoothing: is 0; it must be above 0$"):
        scores(OtamHead(smoothing=0), support, query)


class TestAlignmentLength:
    def test_both_ways_against_the_recurrence(self):
        distances = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        found = alignment_length(distances, smoothing=SMOOTHING)
        one_way = alignment_length(distances, smoothing=SMOOTHING, both_ways=False)
        assert found.shape == one_way.shape == (2, 3)
        for row in range(2):
            for column in range(3):
                cells = distances[row, column]
                there, back = alignment(cells.tolist()), alignment(cells.T.tolist())
                assert found[row, column].item() == pytest.approx(there + back, abs=1e-12)
                assert one_way[row, column].item() == pytest.approx(there, abs=1e-12)

    def test_the_sum_does_not_know_which_sequence_was_first(self):
        distances = torch.rand(5, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(
            alignment_length(distances, smoothing=SMOOTHING), alignment_length(distances.mT, smoothing=SMOOTHING)
        )
