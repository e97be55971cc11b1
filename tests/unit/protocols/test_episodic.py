import pytest
import torch

from slowfast.protocols.base import EpisodeScore, SplitScore, TableRequest
from slowfast.protocols.build import build_protocol
from slowfast.protocols.episodic import Episodic
from slowfast.protocols.metrics import EpisodeTally, Tally

NAMES = ["run", "jump"]
ROWS = [("a.mp4", 0), ("b.mp4", 1)]


def lists(benchmark, parts=("train", "val", "test")):
    return {
        f"episodic/{benchmark}/{part}": (f"episodic/{benchmark}/{part}_index2cls.json", [part, *NAMES], ROWS)
        for part in parts
    }


@pytest.fixture
def cfg(cfg):
    """Of a dataset with one benchmark, once `prepare` has made it."""
    cfg.PROTOCOL, cfg.SPLITS.DATASET = "episodic", "ucf101"
    cfg.EPISODES.WAY, cfg.EPISODES.SHOT, cfg.EPISODES.QUERY, cfg.EPISODES.QUERY_TEST = 5, 2, 4, 3
    cfg.EPISODES.NUM_TRAIN, cfg.EPISODES.NUM_VAL, cfg.EPISODES.NUM_TEST = 30, 20, 10
    return cfg


@pytest.fixture
def ucf(prepare, cfg):
    prepare("ucf101", {**lists("ucf101"), "full/test": ("index2cls.json", NAMES, ROWS)})
    return cfg


def shape(spec):
    return spec.way, spec.shot, spec.query, spec.count


class TestSplits:
    def test_each_part_has_classes_and_videos_of_its_own(self, ucf):
        protocol = build_protocol(ucf)
        (test,) = protocol.eval_splits()
        for part, split in (("train", protocol.train_split()), ("val", protocol.val_split()), ("test", test)):
            assert split.csv.parts[-3:] == ("episodic", "ucf101", f"{part}.csv")
            assert split.label_set.names == (part, *NAMES)
            assert (split.name, split.mode, split.prefix, split.separator, split.official) == (
                part, part, "/videos", ",", 1000,
            )  # fmt: skip

    def test_a_clip_is_one_view(self, ucf):
        """However many views and crops other protocols look at."""
        ucf.TEST.NUM_ENSEMBLE_VIEWS, ucf.TEST.NUM_SPATIAL_CROPS = 10, 3
        for split in (build_protocol(ucf).val_split(), *build_protocol(ucf, views=4).eval_splits()):
            assert (split.views, split.crops) == (1, 1)

    @pytest.mark.parametrize("train", [False, True])
    def test_training_is_in_episodes_where_it_is_asked_for(self, ucf, train):
        ucf.EPISODES.TRAIN = train
        protocol = build_protocol(ucf)
        episodes = protocol.train_split().episodes
        assert (episodes is not None) == train
        if train:
            assert shape(episodes) == (5, 2, 4, 30)
        assert shape(protocol.val_split().episodes) == (5, 2, 3, 20)
        assert shape(protocol.eval_splits()[0].episodes) == (5, 2, 3, 10)

    def test_tests_may_have_a_shape_of_their_own(self, ucf):
        ucf.EPISODES.TRAIN = True
        ucf.EPISODES.WAY_TEST, ucf.EPISODES.SHOT_TEST = 7, 1
        protocol = build_protocol(ucf)
        assert shape(protocol.train_split().episodes) == (5, 2, 4, 30)
        assert shape(protocol.val_split().episodes) == (7, 1, 3, 20)
        assert shape(protocol.eval_splits()[0].episodes) == (7, 1, 3, 10)

    @pytest.mark.parametrize("frames", ["middle", "random"])
    def test_frames_of_tests(self, ucf, frames):
        ucf.EPISODES.TEST_FRAMES, ucf.EPISODES.TRAIN = frames, True
        protocol = build_protocol(ucf)
        assert not protocol.train_split().episodes.random_frames
        assert not protocol.val_split().episodes.random_frames
        (split,) = protocol.eval_splits()
        assert split.episodes.random_frames == (frames == "random")

    def test_validation_on_the_test_classes(self, ucf):
        ucf.EPISODES.VAL = "test"
        split = build_protocol(ucf).val_split()
        assert split.csv.parts[-1] == "test.csv"
        assert (split.name, split.mode) == ("val", "val")
        assert shape(split.episodes) == (5, 2, 3, 20)

    def test_validation_classes_that_are_not_known(self, prepare, cfg):
        folder = prepare("ucf101", lists("ucf101", ("train", "test")))
        protocol = build_protocol(cfg)
        message = (
            f"EPISODES.VAL: 'val', but {folder} has no list episodic/ucf101/val; tools/prepare_data.py makes it of "
            "episodic/<name>/val_index2cls.json, or imports it (--from-repo); or validate on the test classes, as "
            "published: 'test'"
        )
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            protocol.val_split()
        assert str(caught.value) == message
        assert len(protocol.eval_splits()) == 1  # a test needs none
        cfg.EPISODES.VAL = "test"
        assert build_protocol(cfg).val_split().csv.parts[-1] == "test.csv"


class TestSeeds:
    def seeds(self, cfg):
        cfg.EPISODES.TRAIN = True
        protocol = build_protocol(cfg)
        splits = protocol.train_split(), protocol.val_split(), *protocol.eval_splits()
        return [split.episodes.seed for split in splits]

    def test_they_differ(self, ucf):
        assert len(set(self.seeds(ucf))) == 3

    def test_tests_stay_whatever_the_run(self, ucf):
        """All methods and all their runs meet on the same episodes."""
        train, val, test = self.seeds(ucf)
        ucf.RNG_SEED += 1
        other = self.seeds(ucf)
        assert other[0] != train
        assert other[1:] == [val, test]
        ucf.EPISODES.WAY_TEST, ucf.EPISODES.SHOT_TEST, ucf.EPISODES.NUM_TEST, ucf.EPISODES.VAL = 3, 4, 99, "test"
        assert self.seeds(ucf) == other

    def test_a_seed_of_their_own(self, ucf):
        train, val, test = self.seeds(ucf)
        ucf.EPISODES.SEED = 1
        assert self.seeds(ucf)[0] == train
        assert not {*self.seeds(ucf)[1:]} & {val, test}


class TestBenchmark:
    def test_the_only_one_need_not_be_named(self, ucf):
        for name in ("", "ucf101"):
            ucf.EPISODES.BENCHMARK = name
            assert build_protocol(ucf).eval_splits()[0].csv.parts[-2] == "ucf101"

    @pytest.mark.parametrize("name", ["ssv2_small", "ssv2_full"])
    def test_one_of_several(self, prepare, cfg, name):
        prepare("ssv2", {**lists("ssv2_small"), **lists("ssv2_full")})
        cfg.SPLITS.DATASET, cfg.EPISODES.BENCHMARK = "ssv2", name
        protocol = build_protocol(cfg)
        for split in (protocol.train_split(), protocol.val_split(), *protocol.eval_splits()):
            assert split.csv.parts[-2] == name

    @pytest.mark.parametrize("name", ["", "ssv2"])
    def test_one_of_several_has_to_be_named(self, prepare, cfg, name):
        folder = prepare("ssv2", {**lists("ssv2_small"), **lists("ssv2_full")})
        cfg.SPLITS.DATASET, cfg.EPISODES.BENCHMARK = "ssv2", name
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            build_protocol(cfg)
        assert str(caught.value) == (
            f"EPISODES.BENCHMARK: {name!r} is none of the class splits of {folder}; allowed: ssv2_small, ssv2_full"
        )

    def test_another_one_than_the_only_one(self, ucf):
        ucf.EPISODES.BENCHMARK = "hmdb51"
        with pytest.raises(ValueError, match=r"^EPISODES\.BENCHMARK: 'hmdb51' is none .*; allowed: ucf101$"):
            build_protocol(ucf)

    def test_a_dataset_without_class_splits(self, prepare, cfg):
        folder = prepare("ucf101", {"full/test": ("index2cls.json", NAMES, ROWS)})
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            build_protocol(cfg)
        assert str(caught.value) == f"{folder}: has no class splits to draw episodes of; wanted: episodic/<name>/test"

    def test_training_classes_that_are_not_known(self, prepare, cfg):
        prepare("ucf101", lists("ucf101", ("test",)))
        protocol = build_protocol(cfg)
        with pytest.raises(ValueError, match=r"has no list 'episodic/ucf101/train'"):
            protocol.train_split()


def test_summary():
    """Of 8 drawn episodes of 4 queries, 6 could be scored; class 1 is right more often."""
    right, tally = EpisodeTally(4), Tally(3)
    right.add(torch.tensor([4, 4, 2, 3, 1, 4]))
    tally.confusion += torch.tensor([[9, 3, 0], [3, 9, 0], [0, 0, 0]])
    tally.top1 += torch.tensor([9, 9, 0])
    tally.top5 += torch.tensor([12, 11, 0])
    episodes = EpisodeScore(tally=right, num_episodes=8, num_encoded=13)
    score = SplitScore(tally=tally, num_videos=20, episodes=episodes)
    assert score.num_scored == 13
    found = Episodic.summarise(None, {"test": score})
    assert found == {
        "top1_acc": 75.0,
        "top1_ci95": pytest.approx(1.96 * 31.6227766 / 6**0.5),  # of 100, 100, 50, 75, 25 and 100 percent
        "top5_acc": pytest.approx(100 * 23 / 24),
        "mean_class_acc": 75.0,
        "num_episodes": 6.0,
        "coverage": 75.0,
    }
    assert isinstance(found["num_episodes"], float)


class TestTable:
    @pytest.fixture
    def label_db(self, prepare, tmp_path):
        prepare("ssv2", {**lists("ssv2_small"), **lists("ssv2_full")})
        prepare("ucf101", lists("ucf101"))
        return str(tmp_path)

    def test_jobs_of_given_weights(self, label_db):
        jobs = Episodic.jobs(TableRequest(label_db=label_db, trains=False, datasets=["ssv2", "ucf101"]))
        assert [job.name for job in jobs] == [
            "ssv2_small_1shot", "ssv2_small_5shot", "ssv2_full_1shot", "ssv2_full_5shot", "ucf101_1shot",
            "ucf101_5shot",
        ]  # fmt: skip
        assert not any(job.trains or job.weights_from for job in jobs)
        assert all(job.tests for job in jobs)
        assert jobs[2].dataset == "ssv2"
        assert jobs[3].options == {
            "PROTOCOL": "episodic", "SPLITS.DATASET": "ssv2", "EPISODES.BENCHMARK": "ssv2_full",
            "EPISODES.SHOT_TEST": 5,
        }  # fmt: skip

    def test_one_training_serves_all_shots(self, label_db):
        request = TableRequest(label_db=label_db, trains=True, datasets=["ssv2", "ucf101"], shots=(1, 2, 10))
        jobs = Episodic.jobs(request)
        trainings = [job for job in jobs if job.trains]
        assert [job.name for job in trainings] == ["train_ssv2_small", "train_ssv2_full", "train_ucf101"]
        for job in trainings:
            assert not job.tests
            assert job.weights_from == ""
            assert "EPISODES.SHOT_TEST" not in job.options
        for job in jobs:
            if job.tests:
                training = next(other for other in trainings if other.name == job.weights_from)
                assert jobs.index(training) < jobs.index(job)
                assert training.options["EPISODES.BENCHMARK"] == job.options["EPISODES.BENCHMARK"]
        shots = [job.options["EPISODES.SHOT_TEST"] for job in jobs if job.tests]
        assert shots == [1, 2, 10] * 3
        assert len({job.name for job in jobs}) == len(jobs) == 3 * 4

    def test_jobs_are_runs_that_a_configuration_describes(self, label_db, cfg):
        for job in Episodic.jobs(TableRequest(label_db=label_db, trains=True, datasets=["ssv2"])):
            own = cfg.clone()
            own.merge_from_list([item for pair in job.options.items() for item in pair])
            (split,) = build_protocol(own).eval_splits()
            assert split.csv.parts[-2] == job.options["EPISODES.BENCHMARK"]
            assert split.episodes.shot == job.options.get("EPISODES.SHOT_TEST", 2)

    def test_the_published_datasets_unless_others_are_named(self, label_db, prepare):
        prepare("hmdb51", lists("hmdb51"))
        prepare("k400", lists("kinetics100"))
        jobs = Episodic.jobs(TableRequest(label_db=label_db, trains=False, shots=(1,)))
        assert [job.name for job in jobs] == [
            "hmdb51_1shot", "ucf101_1shot", "ssv2_small_1shot", "ssv2_full_1shot", "kinetics100_1shot",
        ]  # fmt: skip

    def test_cells(self, label_db):
        jobs = Episodic.jobs(TableRequest(label_db=label_db, trains=False, datasets=["ssv2", "ucf101"]))
        results = {
            job.name: (job, {"top1_acc": 50.0 + number, "top1_ci95": number / 10}) for number, job in enumerate(jobs)
        }
        cells = Episodic.cells(results)
        found = {(dataset, metric): figure for dataset, row in cells.items() for metric, figure in row.items()}
        keys = [
            ("ssv2", "ssv2_small_shot1"), ("ssv2", "ssv2_small_shot5"), ("ssv2", "ssv2_full_shot1"),
            ("ssv2", "ssv2_full_shot5"), ("ucf101", "shot1"), ("ucf101", "shot5"),
        ]  # fmt: skip
        assert {key: (figure.mean, figure.std) for key, figure in found.items()} == {
            key: (50.0 + number, number / 10) for number, key in enumerate(keys)
        }
        assert all(metric in Episodic.columns for _, metric in found)
        assert Episodic.columns["ssv2_small_shot5"] == "Small, 5-shot"
        assert Episodic.columns["shot1"] == "1-shot"
