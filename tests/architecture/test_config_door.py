"""The configuration stops at the door: past it, code takes keyword arguments and dataclasses."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def may_name_cfg(path):
    parts = path.relative_to(ROOT).parts
    return (
        parts[0] in {"tools", "tests"}
        or parts[:2] == ("slowfast", "config")
        or parts == ("slowfast", "utils", "parser.py")
        or path.name == "build.py"
        or (parts[:2] == ("slowfast", "methods") and path.name == "config.py")
    )


def uses_of_cfg(path):
    """Lines on which a file takes, reads or keeps a config tree, or imports what makes one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        taken = isinstance(node, ast.arg) and node.arg == "cfg"
        read = isinstance(node, ast.Name) and node.id == "cfg" and isinstance(node.ctx, ast.Load)
        kept = isinstance(node, ast.Attribute) and ast.unparse(node) == "self.cfg"
        imported = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & {"CfgNode", "get_cfg"}
        if taken or read or kept or imported:
            yield node.lineno


def sources():
    return [*sorted((ROOT / "slowfast").rglob("*.py")), *sorted(ROOT.glob("*.py")), *sorted((ROOT / "utils").glob("*"))]


def test_only_the_door_names_the_config():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        if path.suffix == ".py" and not may_name_cfg(path)
        for line in sorted(set(uses_of_cfg(path)))
    ]
    assert wrong == []


def test_nothing_probes_the_config_for_optional_keys():
    """A key exists because it is declared; `hasattr` and `.get` would hide a typing mistake."""
    wrong = []
    for path in [*sources(), *sorted((ROOT / "tools").glob("*.py"))]:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            probed = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr == "get" else None
            # getattr(cfg.MODEL, name) fails on an unknown name; only its third argument would hide one.
            if isinstance(node.func, ast.Name) and (node.func.id, len(node.args)) in {("hasattr", 2), ("getattr", 3)}:
                probed = node.args[0]
            while isinstance(probed, ast.Attribute):
                probed = probed.value
            if isinstance(probed, ast.Name) and probed.id == "cfg":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []
