from dataclasses import dataclass

import pytest

from unlabeled.core import catalogue
from unlabeled.core.config import MethodConfig, fingerprint, from_dict, resolve, to_dict
from unlabeled.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    width: int = 8
    betas: tuple[float, float] = (0.9, 0.95)


class Some:
    Config = Config
    variants = {"tiny": {"width": 2}, "paper": {}}


def test_a_variant_is_defaults_and_differences_and_overrides():
    assert resolve(Some, "tiny", {"batch": 4}) == Config(width=2, batch=4)
    assert resolve(Some, None) == Config()


def test_a_config_survives_json():
    config = Config(betas=(0.5, 0.6))
    assert from_dict(Config, to_dict(config)) == config


def test_misspelt_names_get_a_suggestion():
    with pytest.raises(UserError, match="did you mean width"):
        resolve(Some, None, {"widht": 3})
    with pytest.raises(UserError, match="did you mean tiny"):
        resolve(Some, "tyni")
    with pytest.raises(UserError, match="There is no method 'nonesuch'"):
        catalogue.method("nonesuch")


def test_fingerprints_change_with_content_and_not_with_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_a_method_can_be_a_file_of_the_user(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("__all__ = ['Mine']\nclass Mine: pass\n")
    assert catalogue.method(str(file)).__name__ == "Mine"
    file.write_text("")
    with pytest.raises(UserError, match="__all__"):
        catalogue.method(str(file))
    with pytest.raises(UserError, match="no file"):
        catalogue.method(str(tmp_path / "other.py"))
