"""What the quickstart says about its episodes, and when it is content."""

import random
import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture(scope="module")
def episodes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import quickstart_episodes

        yield quickstart_episodes
        for name in ("quickstart_episodes", "quickstart_work"):
            sys.modules.pop(name)


def rows(fsar, raw):
    return {"CLIP-FSAR": fsar, "untrained CLIP, otam": raw}


GOOD, WEAK = {1: (56.0, 0.9), 5: (71.0, 0.9)}, {1: (40.0, 0.9), 5: (58.0, 0.9)}


def test_content(episodes):
    assert [met for _, met in episodes.judge(rows(GOOD, WEAK), 20.0)] == [True] * 4


@pytest.mark.parametrize(
    ("fsar", "raw", "missed"),
    [
        pytest.param({1: (39.9, 0.9), 5: (71.0, 0.9)}, {1: (20.0, 0.9), 5: (20.0, 0.9)}, 0, id="near chance"),
        pytest.param(GOOD, {1: (51.1, 0.9), 5: (58.0, 0.9)}, 1, id="no better than before at 1 shot"),
        pytest.param(GOOD, {1: (40.0, 0.9), 5: (66.1, 0.9)}, 3, id="no better than before at 5 shots"),
    ],
)
def test_missed(episodes, fsar, raw, missed):
    assert [number for number, (_, met) in enumerate(episodes.judge(rows(fsar, raw), 20.0)) if not met] == [missed]


def test_the_best_head_of_the_untrained_clip_counts(episodes):
    scores = rows(GOOD, WEAK) | {"untrained CLIP, prototype": {1: (55.0, 0.9), 5: (30.0, 0.9)}}
    assert [met for _, met in episodes.judge(scores, 20.0)] == [True, False, True, True]


def test_ceiling_without_order_is_what_guessing_between_opposites_gives(episodes):
    rng, right = random.Random(0), 0.0
    for _ in range(20000):
        drawn = rng.sample(range(8), 5)
        right += sum(0.5 if label ^ 1 in drawn else 1.0 for label in drawn) / 5
    assert episodes.ceiling_without_order(5, 8) == pytest.approx(100 * right / 20000, abs=0.3)


def test_table(episodes, capsys):
    episodes.print_table(rows(GOOD, WEAK), way=5, num_classes=8)
    printed = capsys.readouterr().out
    assert "(chance 20.0 %; 71.4 % is the most" in printed
    assert "56.0 +- 0.9 %  71.0 +- 0.9 %" in printed
    assert printed.splitlines()[-2].startswith("untrained CLIP, otam")


def test_episodes_have_models_of_their_own():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quickstart.py", "--episodes", "--models", "STDD"])
        patch.syspath_prepend(str(TOOLS))
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOLS / "quickstart.py"), run_name="__main__")
    assert stopped.value.code == 2
