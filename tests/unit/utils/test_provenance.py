import platform
import re

import torch

from slowfast.utils import provenance


def test_versions_are_strings():
    versions = provenance.package_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all(isinstance(value, str) for value in versions.values())


def test_revision_is_a_hash_or_nothing():
    revision = provenance.git_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision)


def test_no_git_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_revision() is None


def test_a_change_of_any_source_file_changes_the_hash(monkeypatch, tmp_path):
    package = tmp_path / "slowfast"
    (package / "utils").mkdir(parents=True)
    (package / "a.py").write_text("x = 1")
    monkeypatch.setattr(provenance, "__file__", str(package / "utils" / "provenance.py"))
    hashes = [provenance.code_sha256()]
    (package / "a.py").write_text("x = 2")
    hashes.append(provenance.code_sha256())
    (package / "utils" / "b.py").write_text("")
    hashes.append(provenance.code_sha256())
    assert len(set(hashes)) == 3
    (package / "notes.txt").write_text("")
    assert provenance.code_sha256() == hashes[-1]
