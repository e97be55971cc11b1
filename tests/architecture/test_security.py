"""What no source file may do, because it runs what a file or a name says, or is known to hang. docs/security.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("slowfast", "tools", "utils")

# The one place that unpickles; its unpickler finds no names but those that rebuild tensors.
RESTRICTED_READER = "slowfast/models/clip/pickles.py"

FORBIDDEN = {
    "eval": "evaluates text; ast.literal_eval reads literals",
    "exec": "runs text",
    "__import__": "imports what a text names; importlib, with a name from a table",
    "os.system": "starts a shell; subprocess.run with a list",
    "os.popen": "starts a shell; subprocess.run with a list",
    "subprocess.getoutput": "starts a shell; subprocess.run with a list",
    "subprocess.getstatusoutput": "starts a shell; subprocess.run with a list",
    "pickle.load": "runs what the file says; slowfast.utils.io.load_tensors",
    "pickle.loads": "runs what the text says; slowfast.utils.io.load_tensors",
    "pickle.Unpickler": f"only {RESTRICTED_READER} derives from it",
    "dill.load": "runs what the file says",
    "joblib.load": "runs what the file says",
    "marshal.load": "runs what the file says",
    "marshal.loads": "runs what the text says",
    "shelve.open": "unpickles",
    "pandas.read_pickle": "unpickles",
    "torch.jit.load": "compiles what the file says; slowfast.models.clip.torchscript",
    "torch.hub.load": "runs what it downloads",
    "torch.package.PackageImporter": "runs what the file says",
    "yaml.load": "safe_load",
    "yaml.load_all": "safe_load_all",
    "yaml.full_load": "safe_load",
    "yaml.unsafe_load": "safe_load",
    "tempfile.mktemp": "another process may take the name; mkstemp",
    "shutil.unpack_archive": "entries may leave the folder",
    "av.logging.set_level": "deadlocks beside decoding threads",
    "ssl._create_unverified_context": "no check of the server",
}
ATTRIBUTES = {
    "extractall": "entries may leave the folder; read them one by one",
    "set_level": "av.logging.set_level deadlocks beside decoding threads",
}


def sources():
    files = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [*files, *sorted(ROOT.glob("*.py"))]


def names_of(tree):
    """Local name -> full name, of everything imported anywhere in a file."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else (alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def full_name(node, names):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def keyword(call, name):
    return next((entry.value for entry in call.keywords if entry.arg == name), None)


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def offences(text, *, restricted=False):
    """(line, what is wrong) of a source text; `restricted` is the one file that may derive from pickle.Unpickler."""
    tree = ast.parse(text)
    names = names_of(tree)
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    for node in ast.walk(tree):
        # A forbidden function is not passed on either, so that names count wherever they are.
        if isinstance(node, ast.Name | ast.Attribute):
            name = full_name(node, names)
            if name in FORBIDDEN and not (restricted and name == "pickle.Unpickler" and node in bases):
                yield node.lineno, f"{name}: {FORBIDDEN[name]}"
            if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES and name not in FORBIDDEN:
                yield node.lineno, f"{node.attr}: {ATTRIBUTES[node.attr]}"
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, names)
        if name == "torch.load" and not is_constant(keyword(node, "weights_only"), True):
            yield node.lineno, "torch.load: needs weights_only=True"
        if name == "numpy.load" and keyword(node, "allow_pickle") is not None:
            yield node.lineno, "numpy.load: allow_pickle unpickles"
        shell = keyword(node, "shell")
        if shell is not None and not is_constant(shell, False):
            yield node.lineno, "shell: a name could hold a command; pass a list"
        if is_constant(keyword(node, "verify"), False):
            yield node.lineno, "verify=False: no check of the server"
        if keyword(node, "allow_unsafe") is not None:
            yield node.lineno, "allow_unsafe: runs what a YAML file says"
        if name == "urllib.request.urlopen" and keyword(node, "timeout") is None:
            yield node.lineno, "urlopen: needs a timeout"


def test_sources():
    wrong = []
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        found = offences(path.read_text(encoding="utf-8"), restricted=place == RESTRICTED_READER)
        wrong += [f"{place}:{line}: {what}" for line, what in sorted(set(found))]
    assert wrong == []


def test_the_restricted_reader_is_where_it_is_said_to_be():
    text = (ROOT / RESTRICTED_READER).read_text(encoding="utf-8")
    assert [what for _, what in offences(text)] == [f"pickle.Unpickler: {FORBIDDEN['pickle.Unpickler']}"]


@pytest.mark.parametrize(
    "text",
    [
        "import torch; torch.load(p)",
        "import torch; torch.load(p, weights_only=False)",
        "import torch as t; t.load(p, weights_only=flag)",
        "from torch import load; load(p)",
        "import torch; torch.jit.load(p)",
        "from torch import jit; jit.load(p)",
        "import pickle; pickle.load(f)",
        "from pickle import loads as read; read(b)",
        "import pickle; decode = pickle.loads",
        "import pickle\nclass Mine(pickle.Unpickler): pass",
        "import yaml; yaml.load(t, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load; unsafe_load(t)",
        "import yaml; yaml.full_load(t)",
        "import subprocess; subprocess.run(x, shell=True)",
        "import subprocess; subprocess.run(x, shell=flag)",
        "import os; os.system(x)",
        "eval(x)",
        "exec(x)",
        "import av; av.logging.set_level(0)",
        "from av import logging; logging.set_level(0)",
        "import av.logging as log; log.set_level(0)",
        "archive.extractall(p)",
        "import numpy as np; np.load(p, allow_pickle=True)",
        "import urllib.request; urllib.request.urlopen(u)",
        "node.merge_from_file(p, allow_unsafe=True)",
    ],
)
def test_offences_are_seen(text):
    assert list(offences(text))


@pytest.mark.parametrize(
    "text",
    [
        "import torch; torch.load(p, weights_only=True)",
        "import yaml; yaml.safe_load(t)",
        "model.eval()",
        "import pickle; pickle.dump(x, f)",
        "import subprocess; subprocess.run(['a', b], check=True)",
        "import ast; ast.literal_eval(t)",
        "import numpy as np; np.load(p)",
    ],
)
def test_what_is_allowed(text):
    assert not list(offences(text))
