"""Which code and which libraries produced a number."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("torch", "torchvision", "numpy", "av", "einops", "fvcore", "safetensors")


def package_versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that touch numbers.

    Returns: name -> version; "not installed" where a library is missing.
    """
    versions = {"python": platform.python_version()}
    for name in ("slowfast-stdd", *_PACKAGES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def git_revision() -> str | None:
    """Commit of the checkout that holds this package.

    Returns: the hash, with "-dirty" where tracked files were changed; None outside a checkout.
    """
    root = Path(__file__).resolve().parents[2]
    top = _git("rev-parse", "--show-toplevel", folder=root)
    # An installed copy may lie inside a checkout of something else; its commit would say nothing about us.
    if top is None or Path(top).resolve() != root:
        return None
    revision = _git("rev-parse", "HEAD", folder=root)
    if revision is None:
        return None
    return f"{revision}-dirty" if _git("status", "--porcelain", "--untracked-files=no", folder=root) else revision


def code_sha256() -> str:
    """Hash of the source files of this package, whatever a commit says of them."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(*args: str, folder: Path) -> str | None:
    try:
        run = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
