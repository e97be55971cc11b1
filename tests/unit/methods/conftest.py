"""A configuration of the tiny CLIP, from which every method can be built."""

import pytest

from slowfast.config.defaults import get_cfg


@pytest.fixture
def tiny_cfg(tiny_weights, descriptor_keys):
    """Makes a configuration with further keys set."""

    def make(**keys):
        cfg = get_cfg()
        settings = {"MODEL.ARCH": "custom", "MODEL.CLIP_WEIGHTS": str(tiny_weights), **descriptor_keys, **keys}
        cfg.merge_from_list([item for pair in settings.items() for item in pair])
        cfg.freeze()
        return cfg

    return make
