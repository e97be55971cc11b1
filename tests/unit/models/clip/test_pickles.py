import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from slowfast.models.clip import pickles
from slowfast.models.clip.pickles import flat_tensors, nested, read_untrusted, unpickle_archive, unpickle_legacy
from slowfast.utils.io import load_tensors


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


class Shell(Evil):
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"mkdir {self.mark}",)


@pytest.fixture
def read(tmp_path, capsys):
    """What the reading process does, in this one: starting a process for every case would take long."""

    def run(path):
        target = tmp_path / "tensors.safetensors"
        if pickles.main(str(path), str(target)) != 0:
            raise ValueError(f"{path}: {capsys.readouterr().err.strip()}")
        return nested(load_file(target))

    return run


def settings():
    """What the checkpoints of OST and ViFi-CLIP hold beside their weights."""
    from yacs.config import CfgNode

    return CfgNode({"MODEL": {"ARCH": "ViT-B/16", "LAYERS": [1, 2]}, "TAGS": ("a", "b")})


def content(**more):
    whole = torch.arange(24, dtype=torch.float32)
    return {
        "model": {
            "a": whole.view(4, 6),
            "turned": whole.view(4, 6).T,
            "tail": whole[20:],
            "half": torch.ones(3).half(),
        },
        "epoch": 7,
        "names": ["x", {"nested": torch.ones(2)}],
        "optimizer": {"state": {0: {"exp_avg": torch.ones(1000)}}},
        **more,
    }


def test_another_process_hands_back_tensors_only(tmp_path):
    path, mark = tmp_path / "ost.pth", tmp_path / "mark"
    torch.save(content(config=settings(), evil=Shell(mark)), path)
    found = read_untrusted(path)
    assert set(found) == {"model"}
    assert torch.equal(found["model"]["turned"], content()["model"]["turned"])
    assert not mark.exists()
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"^.*ost\.pth: not a readable file of torch\.save \(.*\)$"):
        read_untrusted(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_only_tensors_come_back(tmp_path, read, zipped):
    path = tmp_path / "ost.pth"
    torch.save(content(config=settings(), best=set()), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="unsafe to load"):
        load_tensors(path, what="checkpoint")
    found = read(path)
    assert set(found) == {"model"}
    for name, tensor in content()["model"].items():
        assert found["model"][name].dtype == tensor.dtype
        assert torch.equal(found["model"][name], tensor), name


@pytest.mark.parametrize("evil", [Evil, Shell])
@pytest.mark.parametrize("kind", ["zipped", "legacy", "plain"])
def test_an_evil_pickle_is_not_run(tmp_path, read, evil, kind):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    whole = content(config=evil(mark))
    if kind == "plain":
        path.write_bytes(pickle.dumps({"config": evil(mark)}))
        with pytest.raises(ValueError, match=r"evil\.pth: not a readable file of torch\.save"):
            read(path)
    else:
        torch.save(whole, path, _use_new_zipfile_serialization=kind == "zipped")
        assert set(read(path)["model"]) == set(whole["model"])
    assert not mark.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cposix\nsystem\n(S'mkdir MARK'\ntR.",
        b'cbuiltins\neval\n(S\'__import__("os").mkdir("MARK")\'\ntR.',
        b"c__main__\nsys\n.",
        b"cbuiltins\ngetattr\n(ctorch\nload\nS'__globals__'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x04MARK\x85R.",
        b"(S'MARK'\nios\nmkdir\n.",
    ],
)
def test_opcodes_that_call_become_inert(tmp_path, read, monkeypatch, opcodes):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", opcodes)
    with pytest.raises(ValueError, match=r"evil\.pt: (holds no dict of tensors|not a readable file)"):
        read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.pt"]


def test_an_inert_object_may_be_a_key_a_list_and_a_callable(tmp_path, read):
    from collections import Counter, defaultdict, deque

    path = tmp_path / "odd.pth"
    odd = {deque([1, 2]).maxlen: 1, "c": Counter("aab"), "d": defaultdict(list, {"x": [1]}), "q": deque([1, 2])}
    torch.save({"state_dict": {"w": torch.ones(2)}, "odd": odd, "r": range(3), "t": torch.float32}, path)
    assert set(read(path)) == {"state_dict"}


def test_nothing_inside(tmp_path, read):
    path = tmp_path / "empty.pth"
    torch.save({"epoch": 3, "names": ["a"]}, path)
    with pytest.raises(ValueError, match=r"^.*empty\.pth: holds no dict of tensors$"):
        read(path)


@pytest.mark.parametrize("damage", ["cut", "noise", "short storage"])
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files(tmp_path, read, damage, zipped):
    path = tmp_path / "damaged.pth"
    torch.save({"model": {"w": torch.randn(2000)}, "config": settings()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(b"no pickle" if damage == "noise" else whole[: len(whole) // 2])
    if damage == "short storage":
        path.write_bytes(whole[:-2000])
    with pytest.raises(ValueError, match=r"^.*damaged\.pth: not a readable file of torch\.save \(\w+: [^\n]*\)$"):
        read(path)


def test_a_storage_beyond_the_file(tmp_path):
    """A file cannot claim more memory than it has bytes."""

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 10**12, None) if obj == "here" else None

    path = tmp_path / "claim.pth"
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {}):
            pickle.dump(part, file, protocol=2)
        Writer(file, protocol=2).dump({"w": "here"})
    with pytest.raises(pickle.UnpicklingError, match="does not fit into the file"):
        unpickle_legacy(path, policy=lambda module, name: dict)


def test_a_tensor_that_repeats_one_element_without_end(tmp_path, read):
    path = tmp_path / "wide.pth"
    torch.save({"model": {"w": torch.ones(1).expand(10**12)}, "config": settings()}, path)
    with pytest.raises(ValueError, match=r"wide\.pth: .* repeats its 1 elements"):
        read(path)


def test_an_archive_that_unpacks_to_much_more(tmp_path, read, monkeypatch):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        archive.writestr("x/data/0", bytes(1 << 20))
    monkeypatch.setattr(pickles, "_MOST_EXPANSION_BYTES", 1 << 16)
    with pytest.raises(ValueError, match=r"bomb\.pth: .* unpacks to \d+ bytes"):
        read(path)


def test_a_policy_is_asked_for_every_other_name(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(content(config=settings()), path)
    asked = []

    class Settings(dict):
        pass

    def policy(module, name):
        asked.append(f"{module}.{name}")
        return Settings

    assert torch.equal(unpickle_archive(path, policy=policy)["model"]["tail"], torch.arange(20.0, 24.0))
    assert set(asked) == {"yacs.config.CfgNode", "__builtin__.set"}


def test_flat_names_and_back():
    tree = {
        "model": {"a.b": torch.ones(1), "c\x1fd": torch.zeros(1)},
        "scaler": {"x": torch.ones(1)},
        "t": torch.ones(2),
    }
    flat = flat_tensors(tree)
    assert set(flat) == {"model\x1fa.b", "model\x1fc?d", "t"}
    back = nested(flat)
    assert set(back) == {"model", "t"}
    assert set(back["model"]) == {"a.b", "c?d"}


def test_shared_and_cyclic_content_is_copied_once():
    tensor = torch.arange(10.0)
    tree = {"a": tensor[:5], "b": tensor.expand(3, 10)}
    tree["self"] = tree
    flat = flat_tensors(tree)
    assert set(flat) == {"a", "b"}
    assert flat["a"].untyped_storage().nbytes() == 20
    assert flat["b"].is_contiguous()
