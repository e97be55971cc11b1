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
