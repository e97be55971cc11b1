import random

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.episodes import EpisodeDraws, _sample
from slowfast.datasets.types import EpisodeSpec

seeds = st.integers(0, 2**63 - 1)


@st.composite
def lists(draw):
    """Labels in any order, with gaps between them, and the shape of an episode that they have videos for."""
    way, shot, query = draw(st.integers(2, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    classes = draw(st.lists(st.integers(0, 40), min_size=way, max_size=way + 3, unique=True))
    labels = [label for label in classes for _ in range(draw(st.integers(shot + query, shot + query + 3)))]
    spec = EpisodeSpec(way=way, shot=shot, query=query, count=draw(st.integers(1, 5)), seed=draw(seeds))
    return draw(st.permutations(labels)), spec


def drawn(labels, spec):
    return EpisodeDraws(labels, spec=spec, where="a.csv", names=[str(number) for number in range(41)])


@given(lists(), st.integers(0, 10**9))
def test_an_episode_has_its_shape_and_no_video_twice(case, number):
    labels, spec = case
    episode = drawn(labels, spec)[number]
    assert episode.support.shape == (spec.way, spec.shot)
    assert episode.query.shape == (spec.way, spec.query)
    assert len(set(episode.classes.tolist())) == spec.way
    videos = [*episode.support.ravel().tolist(), *episode.query.ravel().tolist()]
    assert len(set(videos)) == len(videos) == spec.way * (spec.shot + spec.query)
    for label, support, query in zip(episode.classes, episode.support, episode.query, strict=True):
        assert {labels[video] for video in (*support, *query)} == {label}


@given(lists(), st.integers(0, 10**9), st.data())
def test_a_spare_is_of_the_class_and_not_in_the_episode(case, number, data):
    labels, spec = case
    draws = drawn(labels, spec)
    episode = draws[number]
    place = data.draw(st.integers(0, spec.way - 1))
    spare = draws.spare(episode, place, number, data.draw(st.integers(0, 99)))
    taken = {*episode.support[place].tolist(), *episode.query[place].tolist()}
    if labels.count(episode.classes[place]) == len(taken):
        assert spare is None
    else:
        assert spare not in taken
        assert labels[spare] == episode.classes[place]


@given(seeds, st.integers(0, 30), st.data())
def test_a_sample_is_the_begin_of_a_shuffle(seed, total, data):
    """Written out: whole lists, and a swap at each place."""
    count = data.draw(st.integers(0, total))
    numbers, rng = list(range(total)), random.Random(seed)
    for place in range(total):
        other = place + int(rng.random() * (total - place))
        numbers[place], numbers[other] = numbers[other], numbers[place]
    assert sorted(numbers) == list(range(total))
    assert _sample(random.Random(seed), total, count) == numbers[:count]
