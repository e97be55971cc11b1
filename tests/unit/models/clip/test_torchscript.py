import io
import pickle
import warnings
import zipfile

import pytest
import torch

from slowfast.models.clip.model import CLIP
from slowfast.models.clip.torchscript import read_torchscript_tensors


class Traceable(CLIP):
    """CLIP with a forward to trace, and the integers that OpenAI's archives carry as buffers."""

    def __init__(self, sizes):
        super().__init__(sizes)
        for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", sizes.vocab_size)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, frames, tokens):
        return self.logit_scale * self.encode_video(frames).mean(), self.encode_text(tokens)


@pytest.fixture(scope="module")
def archive(tiny_sizes, tiny_state, tmp_path_factory):
    """A real TorchScript archive with half-precision matrices, as OpenAI's."""
    path = tmp_path_factory.mktemp("torchscript") / "tiny.pt"
    clip = Traceable(tiny_sizes)
    clip.load_state_dict(tiny_state, strict=False)
    tokens = torch.tensor([[49406, 5, 49407]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(clip.eval(), (torch.zeros(1, 3, 2, 32, 32), tokens), check_trace=False)
        for parameter in traced.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.half()
        traced.save(str(path))
    return path


def test_tensors_are_those_that_torch_reads(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(str(archive), map_location="cpu").state_dict()
    found = read_torchscript_tensors(archive)
    assert set(found) == set(expected)
    assert {t.dtype for t in found.values()} == {torch.float16, torch.float32, torch.int64}
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_strided_and_shared_storage(tmp_path):
    class Views(torch.nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.arange(12.0)
            self.register_buffer("turned", whole.view(3, 4).T)
            self.register_buffer("tail", whole[6:])
            self.register_buffer("none", torch.zeros(0, 3))

        def forward(self, x):
            return x + self.turned.sum() + self.tail.sum() + self.none.sum()

    path = tmp_path / "views.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Views()).save(str(path))
    found = read_torchscript_tensors(path)
    assert torch.equal(found["turned"], torch.arange(12.0).view(3, 4).T)
    assert torch.equal(found["tail"], torch.arange(6.0, 12.0))
    assert found["none"].shape == (0, 3)


def write_archive(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", content)
        archive.writestr("evil/constants.pkl", b"")
    return path


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_hostile_pickle_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    path = write_archive(tmp_path / "evil.pt", pickle.dumps({"model": Touch(marker)}))
    with pytest.raises(ValueError, match=r"evil\.pt: not a readable TorchScript archive .*io\.open"):
        read_torchscript_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "torch._utils._rebuild_tensor", "torch.load"])
def test_any_other_name_is_refused(tmp_path, name):
    module, attribute = name.rsplit(".", 1)
    path = write_archive(tmp_path / "evil.pt", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ValueError, match=f"refers to {name}, which a weight file has no need of"):
        read_torchscript_tensors(path)


def test_empty_pickle(tmp_path):
    with pytest.raises(ValueError, match="not a readable TorchScript archive"):
        read_torchscript_tensors(write_archive(tmp_path / "empty.pt", b""))


def test_archive_without_data(tmp_path):
    path = tmp_path / "no_data.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(ValueError, match="not a readable TorchScript archive"):
        read_torchscript_tensors(path)


@pytest.mark.parametrize("damage", ["missing storage", "short storage", "cut pickle", "flipped byte"])
def test_damaged_archive(archive, tmp_path, damage):
    path = tmp_path / "damaged.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        biggest = max(source.infolist(), key=lambda info: info.file_size).filename
        for name in source.namelist():
            content = source.read(name)
            if name == biggest and damage == "missing storage":
                continue
            if name == biggest and damage == "short storage":
                content = content[:64]
            if name.endswith("/data.pkl") and damage == "cut pickle":
                content = content[: len(content) // 2]
            target.writestr(name, content)
    if damage == "flipped byte":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.pt: not a readable TorchScript archive"):
        read_torchscript_tensors(path)


def test_malformed_reference(tmp_path):
    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", "too short") if obj == "here" else None

    buffer = io.BytesIO()
    Writer(buffer).dump("here")
    with pytest.raises(ValueError, match=r"odd\.pt: not a readable TorchScript archive"):
        read_torchscript_tensors(write_archive(tmp_path / "odd.pt", buffer.getvalue()))
