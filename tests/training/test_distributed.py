import pytest
import torch

from wnexplore.errors import InputError
from wnexplore.training.distributed import joined, process_gpu


def _start(monkeypatch: pytest.MonkeyPatch, gpus: int, **variables: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_each_process_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    _start(monkeypatch, 4, LOCAL_RANK="3")
    assert process_gpu() == torch.device("cuda", 3)
    _start(monkeypatch, 1)
    assert process_gpu() == torch.device("cuda", 0)


@pytest.mark.parametrize(("gpus", "local"), [(2, "2"), (1, "7"), (0, "0")])
def test_a_process_beyond_the_gpus_is_reported_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local: str
) -> None:
    _start(monkeypatch, gpus, RANK=local, WORLD_SIZE="8", LOCAL_RANK=local)
    message = rf"LOCAL_RANK {local}\b.*\b{gpus} GPU"
    with pytest.raises(InputError, match=message), joined("cuda"):
        pass


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "LOCAL_RANK"])
@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "²"])
def test_a_variable_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    _start(monkeypatch, 2, **({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"} | {variable: text}))
    message = f"{variable} is '{text}'"
    with pytest.raises(InputError, match=message), joined("cuda"):
        pass
