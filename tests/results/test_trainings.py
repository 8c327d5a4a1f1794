"""How trainings under different settings are told apart in words."""

from wnexplore.results.trainings import differing


def test_settings_are_named_where_they_differ_also_from_before_they_were_there() -> None:
    before = {"dataset": "digits", "lr": 0.1, "amp": "off"}
    after = {"dataset": "shapes", "lr": 0.1, "amp": "off", "init": "published", "lr_parity": True}
    assert differing([before, after]) == [
        "digits, init default, lr parity False",
        "shapes, init published, lr parity True",
    ]
    assert differing([before, {**before, "init": "default"}]) == ["", ""]
    assert differing([before, {**before, "lr": 0.2, "amp": "float16"}]) == ["lr 0.1, off", "lr 0.2, float16"]
