"""Who may import whom: the chain that docs/architecture.md draws, read off the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "slowfast"

# Each package may import those of lower rank; equal ranks are siblings that never import each other.
RANKS = {
    "config": 0,
    "utils": 1,
    "datasets": 2,
    "text": 3,
    "models": 4,
    "methods": 5,
    "protocols": 5,
    "engine": 6,
    "report": 7,
    "visualization": 7,
    "api": 8,
}

# module -> the one import that goes against the chain: a method's keys live in its own folder.
UPWARD = {"slowfast.config.defaults": {"slowfast.methods"}}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Full names of the modules that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / full.replace(".", "/")).with_suffix(".py").is_file() or (
                    ROOT / full.replace(".", "/")
                ).is_dir()
                yield full if is_module else node.module


def area(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def edges():
    for path in sorted(PACKAGE.rglob("*.py")):
        for target in imports_of(path):
            if target.split(".")[0] in {"slowfast", "tools", "utils", "tests", "weight_average_tool"}:
                yield module_name(path), target


EDGES = sorted(set(edges()))


def test_every_package_has_a_place_in_the_chain():
    found = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    found |= {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert found <= set(RANKS)


def test_the_package_imports_no_command():
    assert [edge for edge in EDGES if edge[1].split(".")[0] != "slowfast"] == []


def test_packages_import_only_what_stands_before_them():
    wrong = [
        (source, target)
        for source, target in EDGES
        if target not in UPWARD.get(source, set())
        and area(source) != area(target)
        and area(target) in RANKS
        and not RANKS[area(target)] < RANKS[area(source)]
    ]
    assert wrong == []


def test_models_import_only_utils():
    wrong = [edge for edge in EDGES if area(edge[0]) == "models" and area(edge[1]) not in {"models", "utils"}]
    assert wrong == []


def test_a_method_never_imports_another():
    def folder(name):
        parts = name.split(".")
        is_method = parts[1:2] == ["methods"] and len(parts) > 2 and (PACKAGE / "methods" / parts[2]).is_dir()
        return parts[2] if is_method else None

    wrong = [
        (source, target)
        for source, target in EDGES
        if folder(source) and folder(target) and folder(source) != folder(target)
    ]
    assert wrong == []


def test_the_engine_knows_methods_and_protocols_by_their_base_alone():
    # protocols.metrics holds pure functions of scores and labels, and knows no protocol.
    allowed = {"slowfast.methods.base", "slowfast.protocols.base", "slowfast.protocols.metrics"}
    wrong = [
        edge
        for edge in EDGES
        if area(edge[0]) == "engine" and area(edge[1]) in {"methods", "protocols"} and edge[1] not in allowed
    ]
    assert wrong == []


def test_nothing_imports_the_notebook_interface():
    assert [edge for edge in EDGES if edge[1] == "slowfast.api" and edge[0] != "slowfast.api"] == []


def test_configuration_of_a_method_imports_only_the_tree():
    wrong = [
        (path.parent.name, name)
        for path in sorted((PACKAGE / "methods").glob("*/config.py"))
        for name in imports_of(path)
        if name.split(".")[0] == "slowfast" and name not in ("slowfast.config.node", "slowfast.config.shared")
    ]
    assert wrong == []


@pytest.mark.parametrize("heavy", ["slowfast", "slowfast.methods", "slowfast.protocols", "slowfast.models.temporal"])
def test_name_tables_import_nothing(heavy):
    code = (
        "import sys; before = set(sys.modules); "
        f"import {heavy}; "
        f"new = {{name for name in set(sys.modules) - before if not '{heavy}'.startswith(name)}}; "
        "sys.exit(f'imported {sorted(new)[:5]}' if new else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_optional_packages_and_torchvision_are_imported_inside_functions():
    lazy = {"torchvision", "openai", "dotenv", "matplotlib", "tensorboard", "decord", "cv2", "safetensors"}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{module_name(path)}: {name}" for name in names if name.split(".")[0] in lazy]
    assert wrong == []
