import fractions

import pytest

from slowfast.utils.registry import resolve

TABLE = {"fraction": "fractions:Fraction", "ghost": "no_such_module:Thing"}


def test_resolve_imports_only_the_chosen_entry():
    assert resolve(TABLE, "fraction", key="K") is fractions.Fraction


def test_unknown_name_proposes_the_nearest():
    with pytest.raises(ValueError, match=r"^MODEL\.X: unknown value 'fractoin'; did you mean 'fraction'\? allowed: \["):
        resolve(TABLE, "fractoin", key="MODEL.X")


def test_unknown_name_without_a_neighbour():
    with pytest.raises(ValueError, match=r"^K: unknown value 'zzz'; allowed: \['fraction', 'ghost'\]$"):
        resolve(TABLE, "zzz", key="K")
