"""Random alterations of valid inputs give a result or an error of ours: sweep files, conditions, commands."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bounds import bounded
from tests.examples import examples
from tests.results.records import sweep
from wnexplore.cli import main
from wnexplore.design.sweep_file import load_sweep
from wnexplore.errors import WnexploreError
from wnexplore.results import filters
from wnexplore.results.frame import frame
from wnexplore.space.expansion import space_of

ROWS = frame(sweep())
SWEEPS = [
    "backbones: [shufflenet_v2_x0_5]\nmethods: [plain, weightnet]\nM: [1, 2, 1/2]\nG: [1, 4/C]\n",
    "backbones: [shufflenet_v2]\nwidth: [0.5, 1]\nmethods: [se, dynamic]\nexperts: [2]\nstages: [[3]]\n",
    "points:\n- {backbone: resnet18, method: weightnet, M: {1: 1, 2: 2, 3: 2, 4: 4}, G: 1}\nlatency: false\n",
    "M: &m [1, 2]\nG: *m\nper_stage: true\nwhere: params < 2M and M <= 4\nlatency: {threads: [1]}\n",
    "methods: [plain]\ntrain: {data: 'shapes:20', epochs: 2, lr: 0.1, ema: 0.99, nesterov: true}\n",
]
CONDITIONS = [
    "params<3e6 and method=='weightnet'",
    "not (1 < M <= 4 or G in [1, 2, 1/2]) and flops < 150M",
    "M == '2:1+3:2' or stages != \"3+4\"",
    "latency_ratio < 1.2 and device_name in ['AMD EPYC 7B13', cpu]",
]
BITS = [
    *(
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "&a ",
        "*a",
        "'",
        '"',
        "\\",
        "\n",
        "\t",
        "#",
        "!!int ",
        "<<: ",
        "? ",
        "| ",
        "~",
    ),
    *(
        "1e400",
        "-1",
        "0",
        "9" * 30,
        ".inf",
        ".nan",
        "1:30",
        "010",
        "0x1F",
        "1_0",
        "2024-01-01",
        "yes",
        "\x00",
        "\x1b",
    ),
    *(
        "\ud800",
        "\u202e",
        "é",
        "٣",
        "(" * 60,
        "x" * 3000,
        " and ",
        " or ",
        " not ",
        " in ",
        "==",
        "<",
        ">=",
        "/",
        "+",
    ),
    *(
        "M",
        "G",
        "params",
        "latency_ms",
        "backbones: ",
        "M: ",
        "train: ",
        "1/0",
        "4/C",
        "2:1+3:2",
        "%",
        "~/",
        "../",
        "=",
    ),
]


@st.composite
def altered(draw: st.DrawFn, texts: list[str]) -> str:
    """One of `texts` with pieces taken out, put in, doubled or moved."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 6)))
        bit = draw(st.sampled_from(BITS) | st.text(max_size=3) | st.just(text[start:end] * 2))
        text = text[:start] + bit + text[end:]
    return text


def _is_ours(error: WnexploreError) -> None:
    assert len(str(error)) < 5000


FAIR = examples(200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FAIR
@given(altered(SWEEPS))
def test_any_sweep_file(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_bytes(text.encode(errors="surrogatepass"))
        try:
            with bounded():
                spec = load_sweep(path)
        except WnexploreError as error:
            _is_ours(error)
            return
        path.write_text(spec.to_yaml(), encoding="utf-8")
        assert load_sweep(path) == spec


@FAIR
@given(altered(CONDITIONS))
def test_any_condition(text: str) -> None:
    try:
        with bounded():
            assert len(filters.where(ROWS, text)) <= len(ROWS)
    except WnexploreError as error:
        _is_ours(error)


@pytest.fixture(scope="module")
def walked() -> None:
    """torch loaded and the network walked, once: no alteration's fault."""
    space_of(load_sweep(None))


@pytest.mark.usefixtures("walked")
@FAIR
@given(altered(["2", "1/2", "4/C", "2:1+3:2+4:8", "3:1/2 + 4:4/C", "0.5"]), st.sampled_from(["M", "G"]))
def test_any_multiplier(text: str, name: str) -> None:
    overrides = {(name,): (f"--{name}", [text]), ("methods",): ("--method", ["weightnet"])}
    try:
        with bounded():
            space = space_of(load_sweep(None, overrides))  # type: ignore[arg-type]
        assert space.size == 1
        assert space.legal[0] or space.reason(0)
        assert not space.legal[0] or space.params[0] > 0
    except WnexploreError as error:
        _is_ours(error)


COMMANDS = [
    ["space", "--backbone", "shufflenet_v2_x0_5", "--M", "1,2", "--G", "1", "--count"],
    [
        "space",
        "--backbone",
        "shufflenet_v2",
        "--width",
        "0.5,1",
        "--method",
        "se",
        "--reduction",
        "16,8",
        "--count",
    ],
    [
        "sweep",
        "quickstart",
        "--dry-run",
        "--no-latency",
        "--no-train",
        "--seeds",
        "2",
        "--where",
        "params < 2M",
    ],
    ["table", "runs/none", "--where", "params<3e6", "--sort", "-top1", "--objectives", "params,flops"],
    ["plot", "runs/none", "--x", "flops", "--y", "params", "--out", "a.png"],
    ["compare", "runs/a", "runs/b", "--column", "flops", "--fail-above", "1.05"],
    ["pick", "runs/none", "--objective", "params", "--prefer", "flops"],
    ["export", "runs/none", "--format", "csv", "--out", "x.csv"],
]


@pytest.fixture(scope="module")
def loaded() -> None:
    """What the commands import, and the networks that they walk: no alteration's fault."""
    for arguments in COMMANDS:
        with suppress(SystemExit):
            main(arguments)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with one or two of its arguments altered, left out or doubled; `sweep` stays dry."""
    arguments = list(draw(st.sampled_from(COMMANDS)))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(1, len(arguments) - 1))
        if arguments[at] == "--dry-run":
            continue
        done = draw(st.sampled_from(["alter", "alter", "alter", "drop", "double"]))
        if done == "alter":
            arguments[at] = draw(altered([arguments[at]])).replace("\x00", "")
        elif done == "double":
            arguments.insert(at, arguments[at])
        elif len(arguments) > 2:
            del arguments[at]
    return arguments


@pytest.mark.slow
@pytest.mark.usefixtures("loaded")
@settings(FAIR, max_examples=60, suppress_health_check=list(HealthCheck))
@given(command_lines())
def test_any_command_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    arguments: list[str],
) -> None:
    if arguments[0] == "sweep" and "--dry-run" not in arguments:
        return
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    with bounded(), pytest.raises(SystemExit) as stop:
        main(arguments)
    message = capsys.readouterr().err
    assert stop.value.code in (0, 1, 2)
    assert "add --debug" not in message, message[:1000]
    assert "Traceback" not in message
    assert stop.value.code == 0 or (message.startswith("wnexplore: ") and message.count("\n") == 1), message[
        :1000
    ]
