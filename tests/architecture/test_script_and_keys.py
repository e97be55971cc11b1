"""Every declared key is read by the code, or listed among those that nothing reads."""

import ast
from pathlib import Path

from slowfast.config import legacy
from slowfast.config.defaults import get_cfg
from slowfast.config.values import CHOICES

ROOT = Path(__file__).resolve().parents[2]

# Applied by assert_and_infer_cfg, or compared there with the only value that exists.
READ_IN_CONFIG = {"SOLVER.BASE_LR_SCALE_NUM_SHARDS"}
READ_IN_CONFIG |= {key for key, choices in CHOICES.items() if len(choices) == 1}


def sections():
    """Names of all sections, by which the code shortens `cfg.MODEL` to `model`."""
    return {key.split(".")[0] for key in get_cfg().leaves() if "." in key}


def chain(node):
    """The dotted name that an attribute access spells, for instance `cfg.MODEL.ARCH`."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return parts[::-1]


def aliases(tree):
    """Local names of sections: {"solver": "SOLVER"} for `solver = cfg.SOLVER`, also in tuple assignments."""
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            for name, value in zip(targets, values, strict=False):
                parts = chain(value)
                if isinstance(name, ast.Name) and len(parts) == 2 and parts[1] in sections():
                    found[name.id] = parts[1]
    return found


def keys_read(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    local = aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.IfExp):
                for branch in (node.value.body, node.value.orelse):
                    yield ".".join([*chain(branch)[1:], node.attr])
            parts = chain(node)
            if len(parts) > 1:
                yield ".".join([local[parts[0]], *parts[1:]] if parts[0] in local else parts[1:])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A table of keys, such as the options of temporal modules, spells them in full.
            yield node.value


def all_keys_read():
    files = [*(ROOT / "slowfast").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    read = {
        key for path in files if path.parts[-2] != "config" or path.name == "build.py" for key in keys_read(path)
    } | READ_IN_CONFIG
    for path in [*(ROOT / "slowfast" / "methods").glob("*/config.py"), ROOT / "slowfast" / "config" / "shared.py"]:
        read |= set(keys_read(path))
    return read | {f"MODEL.{name}" for name in block_options()}


def block_options():
    """MODEL keys that a temporal module takes under its lower-case name."""
    names = set()
    for path in (ROOT / "slowfast" / "models" / "temporal").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id.upper())
    return names


def test_every_declared_key_is_read():
    silent = set(legacy.inert_defaults())
    read = all_keys_read()
    assert sorted(key for key in get_cfg().leaves() if key not in silent and key not in read) == []


def test_no_key_is_both_read_and_called_inert():
    assert sorted(key for key in all_keys_read() if key in legacy.inert_defaults()) == []
