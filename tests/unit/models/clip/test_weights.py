import dataclasses
import hashlib
import io
import re
import shutil
import urllib.error
import urllib.request
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from slowfast.api import load_model
from slowfast.models.clip import files, weights
from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.weights import (
    cached_archive,
    clip_activation,
    clip_entries,
    download,
    load_clip_state_dict,
    read_clip,
)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def save_torchscript(state, sizes, path):
    class Traceable(CLIP):
        def forward(self, tokens):
            return self.logit_scale * self.encode_text(tokens)

    clip = Traceable(sizes)
    clip.load_state_dict(state)
    # What else an archive of a scripted CLIP may hold.
    clip.transformer.resblocks[0].register_buffer("attn_mask", torch.ones(3, 3))
    clip.register_buffer("input_resolution", torch.tensor(sizes.image_size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(clip, torch.tensor([[49406, 5, 49407]]), check_trace=False).save(str(path))


def test_plain_state_dict(tiny_state, tiny_weights):
    assert_same(load_clip_state_dict(tiny_weights), tiny_state)
    assert_same(load_clip_state_dict(str(tiny_weights)), tiny_state)


def test_half_precision_stays(tiny_state, tmp_path):
    half = {name: t.half() for name, t in tiny_state.items()}
    torch.save(half, tmp_path / "half.pt")
    assert_same(load_clip_state_dict(tmp_path / "half.pt"), half)


def test_torchscript(tiny_state, tiny_sizes, tmp_path):
    save_torchscript(tiny_state, tiny_sizes, tmp_path / "archive.pt")
    assert_same(load_clip_state_dict(tmp_path / "archive.pt", allow_torchscript=True), tiny_state)


@pytest.fixture
def hashed(monkeypatch):
    """The files whose content is hashed, in order."""
    paths = []
    for module in (files, weights):
        sha256 = module.sha256_file
        monkeypatch.setattr(module, "sha256_file", lambda path, sha256=sha256: (paths.append(path), sha256(path))[1])
    return paths


def test_unknown_torchscript_is_refused_unread(tiny_state, tiny_sizes, tmp_path, hashed, monkeypatch):
    path = tmp_path / "archive.pt"
    save_torchscript(tiny_state, tiny_sizes, path)
    monkeypatch.setattr(files, "read_torchscript_tensors", lambda path: pytest.fail("was parsed"))
    message = (
        f"{path}: TorchScript archive with sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}, which is none of "
        "the published CLIPs; allowed with MODEL.CLIP_ALLOW_TORCHSCRIPT True (runs), --allow-torchscript (tools) or "
        "allow_torchscript=True (load_model)"
    )
    for read in (read_clip, load_clip_state_dict, clip_activation, load_model):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read(path)
    assert hashed == [path] * 4


def test_published_torchscript_needs_no_flag(tiny_state, tiny_sizes, tmp_path, hashed, monkeypatch):
    path = tmp_path / "renamed by its owner.pt"
    save_torchscript(tiny_state, tiny_sizes, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = dataclasses.replace(PUBLISHED["vitb16"], sha256=digest, url=f"https://example.invalid/{digest}/tiny.pt")
    monkeypatch.setitem(PUBLISHED, "vitb16", known)
    clip = read_clip(path)
    assert_same(clip.state, tiny_state)
    assert clip.activation == "quick_gelu"
    assert hashed == [path]
    # A download is compared with its hash by whoever finds it; once is enough.
    shutil.copy(path, tmp_path / "tiny.pt")
    assert_same(read_clip("ViT-B/16", cache_dir=tmp_path).state, tiny_state)
    assert hashed == [path, tmp_path / "tiny.pt"]


def test_load_model_takes_a_torchscript_archive_on_demand(tiny_state, tiny_sizes, tmp_path):
    save_torchscript(tiny_state, tiny_sizes, tmp_path / "archive.pt")
    model = load_model(tmp_path / "archive.pt", allow_torchscript=True)
    assert torch.equal(model.clip.visual.proj, tiny_state["visual.proj"])


def test_safetensors(tiny_state, tmp_path):
    save_file({name: t.contiguous() for name, t in tiny_state.items()}, tmp_path / "clip.safetensors")
    assert_same(load_clip_state_dict(tmp_path / "clip.safetensors"), tiny_state)


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
@pytest.mark.parametrize("wrap", ["model_state", "state_dict"])
def test_checkpoints(tiny_state, tmp_path, prefix, wrap):
    state = {prefix + name: tensor for name, tensor in tiny_state.items()}
    if prefix:
        lead = prefix.removesuffix("model.")
        state[f"{lead}raw_model.visual.proj"] = torch.zeros(1)
        state[f"{lead}projector_v.0.weight"] = torch.zeros(32, 32)
    torch.save({"epoch": 3, wrap: state, "cfg": "A: 1"}, tmp_path / "checkpoint.pyth")
    assert_same(load_clip_state_dict(tmp_path / "checkpoint.pyth"), tiny_state)


def test_integers_of_the_archive_are_not_parameters(tiny_state):
    extra = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    assert_same(clip_entries({**tiny_state, **extra}, source="x"), tiny_state)


def test_unknown_name():
    message = (
        "CLIP weights 'vitb8': no such file; allowed: a file or one of vitb32, vitb16, vitl14, rn50, ViT-B/32, "
        "ViT-B/16, ViT-L/14, RN50"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_clip_state_dict("vitb8")


def test_file_without_a_clip(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    message = (
        f"{path}: not a CLIP state dict: found 1 entries such as fc.weight; known are names that begin with "
        "model.visual., visual., text.transformer., vision_model., image_encoder."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_clip_state_dict(path)


@pytest.mark.parametrize(("content", "found"), [([1, 2], "list"), ({"a": 1}, "dict"), (torch.zeros(2), "Tensor")])
def test_file_without_a_state_dict(tmp_path, content, found):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: holds {found}, not a state dict of tensors$"):
        load_clip_state_dict(path)


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors"])
def test_file_that_is_no_weight_file(tmp_path, name):
    path = tmp_path / name
    path.write_text("hello")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_clip_state_dict(path)


@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_truncated_file(tiny_weights, tmp_path, keep):
    content = tiny_weights.read_bytes()
    path = tmp_path / "short.pt"
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: CLIP weights "):
        load_clip_state_dict(path)


def test_damaged_directory_of_an_archive(tiny_weights, tmp_path):
    """The end mark is intact, so it looks like a zip file, but its table of contents is not."""
    content = bytearray(tiny_weights.read_bytes())
    with zipfile.ZipFile(tiny_weights) as archive:
        start = archive.start_dir
    content[start : start + 4] = b"\0\0\0\0"
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_clip_state_dict(path)


# --- downloads; no test touches the network ---


@pytest.fixture
def published(tiny_weights):
    """A published archive whose content is the tiny CLIP."""
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    url = f"https://example.invalid/{digest}/tiny.pt"
    return dataclasses.replace(PUBLISHED["vitb16"], name="ViT-B/16", url=url, sha256=digest)


@pytest.fixture
def serve(monkeypatch):
    """Replaces the network by given bytes or an exception; returns the list of requests."""

    def start(answer):
        requests = []

        def urlopen(url, timeout=None):
            requests.append(url)
            if isinstance(answer, Exception):
                raise answer
            return answer if hasattr(answer, "read") else io.BytesIO(answer)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return requests

    return start


def test_download_once(published, serve, tiny_weights, tiny_state, tmp_path):
    requests = serve(tiny_weights.read_bytes())
    path = download(published, cache_dir=tmp_path / "new" / "cache")
    assert path == cached_archive(published, cache_dir=tmp_path / "new" / "cache")
    assert_same(load_clip_state_dict(path), tiny_state)
    assert download(published, cache_dir=tmp_path / "new" / "cache") == path
    assert requests == [published.url]
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.pt"]


def test_two_processes_download_side_by_side(published, serve, tiny_weights, tiny_state, tmp_path, monkeypatch):
    content = tiny_weights.read_bytes()

    class Overtaken(io.BytesIO):
        """A connection during which another process starts and ends the same download."""

        def read(self, size=-1):
            if self.tell() == 0:
                serve(content)
                with monkeypatch.context() as other:
                    other.setattr("os.getpid", lambda: -1)
                    download(published, cache_dir=tmp_path)
            return super().read(size)

    serve(Overtaken(content))
    path = download(published, cache_dir=tmp_path)
    assert_same(load_clip_state_dict(path), tiny_state)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.pt"]


def test_name_leads_to_the_cache(published, serve, tiny_weights, tiny_state, tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "vitb16", published)
    requests = serve(urllib.error.URLError("offline"))
    shutil.copy(tiny_weights, tmp_path / "tiny.pt")
    for name in ("vitb16", "ViT-B/16"):
        assert_same(load_clip_state_dict(name, cache_dir=tmp_path), tiny_state)
    assert requests == []


def test_of_a_folder_safetensors_is_advised(tmp_path):
    message = f"CLIP weights {str(tmp_path)!r}: is a folder; expected a file"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_clip_state_dict(tmp_path)
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}, such as .*model\\.safetensors$"):
        load_clip_state_dict(tmp_path)


def test_downloads_are_encrypted_and_known_by_their_hash():
    for entry in PUBLISHED.values():
        assert entry.url.startswith("https://")
        assert entry.sha256 in entry.url


def test_default_cache_is_that_of_openai(published):
    assert cached_archive(published).parts[-4:-1][-2:] == (".cache", "clip")


def test_wrong_hash_in_the_cache(published, serve, tmp_path):
    serve(urllib.error.URLError("offline"))
    target = tmp_path / "tiny.pt"
    target.write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()
    message = f"{target}: sha256 is {found}, expected {published.sha256}; delete the file to fetch it anew"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        download(published, cache_dir=tmp_path)


def test_truncated_download_leaves_nothing(published, serve, tiny_weights, tmp_path):
    content = tiny_weights.read_bytes()[:1000]
    serve(content)
    found = hashlib.sha256(content).hexdigest()
    message = f"{published.url}: sha256 is {found}, expected {published.sha256}; nothing was kept"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        download(published, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Breaking(io.BytesIO):
    """A connection that breaks after the first block."""

    def __init__(self, error):
        super().__init__(b"x" * 10)
        self.error = error

    def read(self, size=-1):
        if block := super().read(size):
            return block
        raise self.error


def failures():
    import http.client

    return {
        "no network": urllib.error.URLError("Name or service not known"),
        "not found": urllib.error.HTTPError("https://example.invalid", 404, "Not Found", {}, None),
        "timeout": TimeoutError("timed out"),
        "reset": Breaking(ConnectionResetError("reset by peer")),
        "incomplete": Breaking(http.client.IncompleteRead(b"x", 5)),
    }


@pytest.mark.parametrize("name", failures())
def test_failed_download_says_what_to_do(published, serve, tmp_path, name):
    serve(failures()[name])
    target = tmp_path / "tiny.pt"
    message = (
        rf"^cannot download ViT-B/16 from {re.escape(published.url)} \(.+\); "
        rf"put the file at {re.escape(str(target))} or set MODEL\.CLIP_WEIGHTS to a local file$"
    )
    with pytest.raises(ValueError, match=message):
        download(published, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


CTX = {"prompt_learner.ctx": torch.zeros(4, 64)}
VIFI = "a ViFi-CLIP with learned prompts"


@pytest.mark.parametrize(
    ("more", "what", "method"),
    [
        (CTX, f"a TC-CLIP or {VIFI}", "tc_clip or vifi_clip"),
        ({**CTX, "prompt_generation_layer.0.ln_1.bias": torch.zeros(64)}, "a TC-CLIP", "tc_clip"),
        ({**CTX, "model.visual.VPT": torch.zeros(2, 64)}, VIFI, "vifi_clip"),
        ({"model.visual.transformer.resblocks.1.VPT_shallow": torch.zeros(2, 64)}, VIFI, "vifi_clip"),
    ],
)
def test_learned_prompts_are_more_than_a_clip(tiny_state, tmp_path, more, what, method):
    """Taken for a CLIP, they would be dropped without a word."""
    ours = {f"model.{name}": tensor for name, tensor in tiny_state.items()}
    torch.save({"model_state": ours | more}, tmp_path / "x.pyth")
    message = f"x.pyth: holds {what}, which is more than a CLIP; as weights of METHOD {method} it is loaded by TRAIN."
    with pytest.raises(ValueError, match=re.escape(message)):
        read_clip(tmp_path / "x.pyth")


def test_official_files_of_prompts_are_more_than_a_clip(in_layout, tmp_path):
    for layout, what in (("vifi_prompted", VIFI), ("tc_clip", "a TC-CLIP")):
        torch.save({"model": in_layout(layout)}, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=f"x.pth: holds {what}, which is more than a CLIP"):
            read_clip(tmp_path / "x.pth")
