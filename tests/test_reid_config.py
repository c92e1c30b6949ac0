"""Recipes, overrides, and what a wrong key or value is told."""

import pytest

from reid.config import RunConfig, from_dict, load_config, recipe_names, replace, to_dict
from reid.errors import UserError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads(name: str) -> None:
    assert load_config(name).method in ("supervised", "sureid")


def test_round_trip_through_plain_types() -> None:
    config = load_config("demo", ["model.keep_ratio=[0.8, 0.6, 0.4]", "optim.lr=1e-4"])
    assert config.model.keep_ratio == (0.8, 0.6, 0.4)
    assert config.optim.lr == 1e-4
    assert from_dict(to_dict(config)) == config


def test_overrides_win_over_the_recipe(tmp_path: object) -> None:
    assert load_config("sureid").train.epochs == 200
    assert load_config("sureid", ["train.epochs=3"]).train.epochs == 3
    assert replace(RunConfig(), train__epochs=4).train.epochs == 4


def test_the_words_yes_and_no_are_text_where_text_is_expected() -> None:
    config = load_config("demo", ["train.mixed_precision=no", "train.keep_data_on_device=yes"])
    assert config.train.mixed_precision == "no"
    assert config.train.keep_data_on_device == "yes"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.keep_ration=0.5", ("model.keep_ration", "keep_ratio")),
        ("modle.keep_ratio=0.5", ("modle", "model")),
        ("model.keep_ratio=1.5", ("1.5", "(0, 1]")),
        ("model.keep_ratio=0", ("0.0", "(0, 1]")),
        ("model.keep_ratio=[0.5, -1]", ("-1.0", "(0, 1]")),
        ("model.reweight=sometimes", ("sometimes", "literal_after_norm")),
        ("train.epochs=many", ("train.epochs", "many", "int")),
        ("train.epochs=0", ("train.epochs", "at least 1")),
        ("train.cross_camera=yes please", ("train.cross_camera", "bool")),
        ("augment.views=[clean, foggy]", ("foggy", "occluded")),
        ("augment.views=[]", ("augment.views", "empty")),
        ("data.image_size=[256]", ("data.image_size",)),
        ("data=5", ("data", "section")),
        ("train.epochs", ("section.key=value",)),
    ],
)
def test_a_wrong_override_is_refused_with_the_remedy(override: str, words: tuple[str]) -> None:
    with pytest.raises(UserError) as error:
        load_config("demo", [override])
    for word in words:
        assert word in str(error.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'sureid'"):
        load_config("sureidd")


def test_a_missing_or_broken_recipe_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [1, 2")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(broken)
    broken.write_text("- a\n- b\n")
    with pytest.raises(UserError, match="mapping"):
        load_config(broken)
