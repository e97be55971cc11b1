"""Options: what is refused, and what a wrong one is called."""

import re

import pytest

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.methods.ost.build import text_files
from slowfast.methods.ost.config import FOREIGN, OstConfig

WRONG = {
    "MODEL.TEMPORAL_MODELING_TYPE": "expand_temporal_view",
    "MODEL.RAW_MODEL_DISTILLATION": True,
    "MODEL.ENSEMBLE_PRED": True,
    "MODEL.TEXT_PROMPT": True,
    "MODEL.NUM_EXPERTS": 2,
    "DATA.TEXT_AUG": True,
    "TUNE_HEAD": True,
    "MIXUP.ENABLE": True,
    "SPLITS.NAMES": "rephrased",
}


def test_defaults_are_the_published_values(tiny_cfg):
    config = OstConfig.from_cfg(tiny_cfg(METHOD="ost"))
    assert (config.use, config.num_descriptors, config.kinds) == ("both", 4, ("spatial", "temporal"))
    assert (config.solver, config.eps, config.max_iterations, config.tolerance) == ("sinkhorn", 0.1, 100, 0.01)


def test_every_foreign_key_is_tried():
    assert set(WRONG) == set(FOREIGN)


@pytest.mark.parametrize("key", WRONG)
def test_keys_of_other_methods(ost_cfg, key):
    with pytest.raises(ValueError, match=rf"^{re.escape(key)}: .*") as caught:
        OstConfig.from_cfg(ost_cfg(**{key: WRONG[key]}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"OST.EPS": 0.0}, "OST.EPS: is 0.0; it must be above 0"),
        ({"OST.EPS": -1.0}, "OST.EPS: is -1.0; it must be above 0"),
        (
            {"OST.KINDS": ["spatial", "spatial"]},
            "OST.KINDS: ['spatial', 'spatial'] names a kind twice; allowed: one or both, each once",
        ),
        (
            {"OST.DES_SPATIAL": "", "OST.DES_TEMPORAL": ""},
            "OST.DES_CLASSES: is for the files of OST.DES_SPATIAL and DES_TEMPORAL, which are empty",
        ),
        (
            {"OST.DES_TEMPORAL": ""},
            "OST.DES_CLASSES: is for the files of OST.DES_SPATIAL and DES_TEMPORAL, which are empty",
        ),
    ],
)
def test_values_that_do_not_go_together(ost_cfg, keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        OstConfig.from_cfg(ost_cfg(**keys))


def test_a_kind_that_is_not_scored_needs_no_file(ost_cfg, files):
    config = OstConfig.from_cfg(ost_cfg(**{"OST.KINDS": ["spatial"], "OST.DES_TEMPORAL": ""}))
    assert config.files == {"spatial": files["OST.DES_SPATIAL"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("OST.USE", "all"),
        ("OST.SOLVER", "emd"),
        ("OST.STOP", "never"),
        ("OST.N", 0),
        ("OST.MAX_ITERATIONS", 0),
        ("OST.TOLERANCE", -0.1),
        ("OST.KINDS", ["names"]),
        ("OST.KINDS", []),
    ],
)
def test_values_out_of_range(key, value):
    cfg = get_cfg()
    cfg.merge_from_list(["METHOD", "ost", "MODEL.MODEL_NAME", "TemporalClipVideo", "MODEL.ARCH", "vitb16", key, value])
    with pytest.raises(ValueError, match=f"^{re.escape(key)}: .*(allowed|expected)"):
        assert_and_infer_cfg(cfg)


def test_files_that_are_read(ost_cfg, files, labels):
    found = text_files(ost_cfg(), labels())
    own = files["OST.DES_SPATIAL"], files["OST.DES_CLASSES"], files["OST.DES_TEMPORAL"], files["OST.DES_CLASSES"]
    assert found == list(own)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"OST.EPS": 0.02},
            r"OST\.EPS: 0\.02 is too small for exp\(-2 / EPS\) in float32; allowed: at least 0\.025, or ",
        ),
        ({"MODEL.LOSS_FUNC": "mse"}, r"MODEL\.LOSS_FUNC: 'mse' does nothing under METHOD 'ost', whose loss is its own"),
    ],
)
def test_what_would_give_no_number_or_do_nothing(tiny_cfg, keys, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        OstConfig.from_cfg(tiny_cfg(METHOD="ost", **keys))


@pytest.mark.parametrize("keys", [{"OST.LOG_DOMAIN": True}, {"OST.SOLVER": "none"}, {"OST.SOLVER": "uniform"}])
def test_a_small_eps_where_nothing_underflows(tiny_cfg, keys):
    assert OstConfig.from_cfg(tiny_cfg(METHOD="ost", **{"OST.EPS": 0.005, **keys})).eps == 0.005
