import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cli.conftest import Command
from wnexplore.measure import layer_benchmark
from wnexplore.nn.formulations import apply_generated

RESNET = ("race", "--backbone", "resnet18", "--stem", "small")
SMALL = (
    *("race", "--backbone", "shufflenet_v2_x0_5", "--stem", "small", "--resolution", "16"),
    *("--num-classes", "10", "--device", "cpu", "--threads", "1", "--seconds", "0.001"),
)
ONE = (*SMALL, "--layer", "stage2.1.branch2.0")


@pytest.mark.slow
def test_prints_one_json_object(command: Command) -> None:
    done = command(*SMALL, "--M", 4, "--G", 2, "--batch-size", "4,1,4", "--json")
    assert done.code == 0, done.out
    result = json.loads(done.out)
    assert (result["backbone"], result["method"], result["M"], result["G"]) == (
        *("shufflenet_v2_x0_5", "weightnet", 4, 2),
    )
    protocol = result["protocol"]
    assert (protocol["device"], protocol["threads"], protocol["mode"]) == ("cpu", 1, "inference")
    assert result["environment"]["threads"] == 1
    regrets = []
    for layer in result["layers"]:
        assert [benchmark["batch_size"] for benchmark in layer["races"]] == [1, 4]
        assert layer["crossover"][0][0] == 1
        for benchmark in layer["races"]:
            assert all(entry["agrees"] for entry in benchmark["formulations"].values())
            regrets.append(benchmark["regret"])
    worst = result["regret"]["worst"]
    assert worst["regret"] == max(regrets)
    assert min(regrets) <= result["regret"]["geometric_mean"] <= worst["regret"]


def test_prints_a_table_of_one_layer(command: Command) -> None:
    done = command(*ONE, "--method", "condconv", "--mode", "train", "--batch-size", "1,2")
    assert done.code == 0, done.out
    assert "stage2.1.branch2.0" in done.out
    assert "stage2.0" not in done.out
    assert "24→24 1×1 g1, 8×8" in done.out
    assert "train mode" in done.out
    assert "regret" in done.out


def test_a_disagreement_fails(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*inputs: Any) -> Tensor:
        y = apply_generated(*inputs)
        return torch.zeros_like(y) if inputs[4] == "shared" else y

    monkeypatch.setattr(layer_benchmark, "apply_generated", wrong)
    done = command(*ONE, "--batch-size", "1")
    assert done.code == 1
    assert re.search(r"✗ stage2\.1\.branch2\.0, batch 1: shared\b.* 1\.0e\+00", done.out)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ((*RESNET, "--method", "plain"), "generated kernels"),
        ((*RESNET, "--method", "se"), "generated kernels"),
        ((*RESNET, "--layer", "layer1.0.conv3"), "layer1.0.conv2"),
        ((*RESNET, "--M", "1", "--G", "2"), "layer1.0.conv1"),
        ((*RESNET, "--batch-size", "0"), "option --batch-size"),
        ((*RESNET, "--batch-size", ""), "latency.batch_sizes is empty"),
        ((*RESNET, "--dtype", "float32,float16"), "option --dtype"),
        ((*RESNET, "--dtype", "tf32", "--device", "cpu"), "'tf32'"),
        ((*RESNET, "--memory-format", "nchw"), "option --memory-format"),
        ((*RESNET, "--mode", "test"), "option --mode"),
        ((*RESNET, "--threads", "0"), "option --threads"),
        ((*RESNET, "--target", "2"), "option --target"),
        ((*RESNET, "--seconds", "0"), "option --seconds"),
    ],
    ids=lambda value: " ".join(value[5:]) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_is_reported_in_one_line(
    command: Command, requested: tuple[str, ...], message: str
) -> None:
    done = command(*requested)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
