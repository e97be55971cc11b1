import re

import pytest
import torch

from slowfast.text.feature_file import FeatureFile, read_feature_file, write_feature_file

KEY = "THE.KEY"


@pytest.fixture
def file():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    features = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return FeatureFile(features=features, mask=mask, names=("a", "schön"), record={"kind": "xmix", "content": "12"})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_written_is_read(tmp_path, file, suffix):
    path = tmp_path / f"features{suffix}"
    write_feature_file(path, file)
    found = read_feature_file(path, what=KEY)
    assert torch.equal(found.features, file.features)
    assert torch.equal(found.mask, file.mask)
    assert (found.names, dict(found.record)) == (file.names, file.record)


def test_bare_file_is_the_tensor_as_published(tmp_path, file):
    write_feature_file(tmp_path / "features.pt", file, bare=True)
    content = torch.load(tmp_path / "features.pt", weights_only=True)
    assert torch.equal(content, file.features)
    found = read_feature_file(tmp_path / "features.pt", what=KEY)
    assert (found.mask, found.names, dict(found.record)) == (None, None, {})


def test_bare_safetensors_say_in_the_header_where_they_are_from(tmp_path, file):
    from safetensors.torch import load_file

    path = tmp_path / "features.safetensors"
    write_feature_file(path, file, bare=True)
    assert list(load_file(path)) == ["features"]
    found = read_feature_file(path, what=KEY)
    assert found.mask is None
    assert (found.names, dict(found.record)) == (file.names, file.record)


def test_the_same_features_give_the_same_safetensors_file(tmp_path, file):
    contents = set()
    for number in range(8):
        write_feature_file(tmp_path / f"{number}.safetensors", file)
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1


def test_safetensors_that_are_no_features(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "features.safetensors"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {KEY} not found')}$"):
        read_feature_file(path, what=KEY)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {KEY} cannot be read')} .*$"):
        read_feature_file(path, what=KEY)
    save_file({"weight": torch.ones(2)}, path)
    message = f"{KEY}: {path}: has no entry 'features'; expected a float tensor [classes, prompts, width]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_feature_file(path, what=KEY)
    save_file({"features": torch.ones(1, 1, 1)}, path, metadata={"names": "{"})
    with pytest.raises(ValueError, match=r"cannot be read \(JSONDecodeError"):
        read_feature_file(path, what=KEY)


def test_unknown_suffix(tmp_path, file):
    with pytest.raises(ValueError, match=r"features\.bin: unknown suffix '\.bin'; allowed: \.pt, \.safetensors$"):
        write_feature_file(tmp_path / "features.bin", file)
