import re
from fractions import Fraction
from pathlib import Path

import pytest

from wnexplore.design.shipped import find_sweep, shipped_sweeps
from wnexplore.design.sweep_file import Overrides, load_sweep
from wnexplore.errors import InputError
from wnexplore.space.expansion import expand, space_of

EXAMPLE = """\
backbones: [shufflenet_v2_x0_5]
methods: [plain, se, weightnet]
M: [1, 2, 4, 8]
G: [1, 2]
resolution: [224]
latency: {device: auto, batch_sizes: [1, 16], dtypes: [float32]}
train: {data: digits, epochs: 5, seeds: 3}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    spec = load_sweep(_write(tmp_path, EXAMPLE))
    assert spec.M == (1, 2, 4, 8)
    assert spec.latency is not None
    assert spec.latency.batch_sizes == (1, 16)
    assert spec.train is not None
    assert (spec.train.data, spec.train.epochs, spec.train.seeds) == ("digits", 5, 3)


def test_three_lines_make_a_sweep(tmp_path: Path) -> None:
    spec = load_sweep(_write(tmp_path, "backbones: [resnet18]\nM: [1]\nG: [1]\n"))
    assert [str(p) for p in expand(spec).points] == ["resnet18 plain", "resnet18 weightnet M=1 G=1"]
    assert spec.latency is not None
    assert spec.train is None


def test_methods_without_m_and_g_appear_once_and_illegal_pairs_are_reported(tmp_path: Path) -> None:
    space = expand(load_sweep(_write(tmp_path, EXAMPLE)))
    assert [p.method for p in space.points] == ["plain", "se"] + ["weightnet"] * 7
    ((point, reason),) = space.skipped
    assert (point.M, point.G) == (1, 2)
    assert "stage2.0.branch1.0" in reason


def test_a_written_sweep_reads_back(tmp_path: Path) -> None:
    spec = load_sweep(_write(tmp_path, EXAMPLE + "activation: [softmax]\n"), {("G",): ("--G", ["1/2"])})
    assert load_sweep(_write(tmp_path, spec.to_yaml())) == spec
    assert spec.G == (Fraction(1, 2),)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("[3, 4]", {"3+4"}),
        ("[[3, 4], [4], null]", {"3+4", "4", None}),
        ("3+4", {"3+4"}),
        ("4", {"4"}),
        ("['3+4', 4, null]", {"3+4", "4", None}),
        ("[all, 4, '4+2+4', 2+4+3+1]", {None, "4", "2+4"}),
        ("all", {None}),
        ("all+head", {"all+head"}),
        ("[[4, head], [all, pyramid, head], [pyramid]]", {"4+head", "all+pyramid+head", "pyramid"}),
        ("[4, head]", {"4", "head"}),
        ("[all, head]", {None, "head"}),
    ],
)
def test_stages_are_one_choice_or_several(tmp_path: Path, written: str, found: set[str | None]) -> None:
    path = tmp_path / "sweep.yaml"
    task = "detection" if "head" in written else "classification"
    path.write_text(f"task: [{task}]\nbackbones: [resnet18]\nmethods: [se]\nstages: {written}\n")
    spec = load_sweep(path)
    assert {point.stages for point in expand(spec).points} == found
    path.write_text(spec.to_yaml())
    assert load_sweep(path) == spec


def test_stages_that_a_backbone_does_not_have_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("backbones: [resnet18, shufflenet_v2_x0_5]\nstages: [1, 2]\n")
    with pytest.raises(InputError, match=r"sweep.yaml: stages is '1\+2': shufflenet_v2_x0_5 has 2, 3, 4"):
        load_sweep(path)


def test_points_stand_alone_or_with_a_grid(tmp_path: Path) -> None:
    points = "points: [{backbone: resnet18, method: weightnet, M: 4, G: 2}]\n"
    alone = expand(load_sweep(_write(tmp_path, points)))
    assert [str(p) for p in alone.points] == ["resnet18 weightnet M=4 G=2"]
    assert expand(load_sweep(_write(tmp_path, load_sweep(tmp_path / "sweep.yaml").to_yaml()))) == alone
    crossed = expand(load_sweep(_write(tmp_path, points + "methods: [se]\n")))
    assert [str(p) for p in crossed.points] == ["shufflenet_v2_x0_5 se", "resnet18 weightnet M=4 G=2"]
    extra = expand(load_sweep(_write(tmp_path, points + "backbones: [resnet50]\n")))
    assert [p.backbone for p in extra.points] == ["resnet50", "resnet50", "resnet18"]


def test_what_is_switched_off_stays_off_when_written(tmp_path: Path) -> None:
    spec = load_sweep(_write(tmp_path, "latency: false\n"))
    assert load_sweep(_write(tmp_path, spec.to_yaml())).latency is None


@pytest.mark.parametrize(
    ("train", "length"),
    [
        ("epochs: 2", (2, None)),
        ("steps: 7", (None, 7)),
        ("epochs: 2, steps: null", (2, None)),
        ("schedule: halving, max_epochs: 27", (27, None)),
        ("schedule: halving, max_epochs: 27, epochs: 27, eta: 2", (27, None)),
        ("data: 'shapes:20', ema: 0.99, amp: bfloat16", (5, None)),
    ],
)
def test_trainings_have_one_length_and_stay_so_when_written(
    tmp_path: Path, train: str, length: tuple[int | None, int | None]
) -> None:
    spec = load_sweep(_write(tmp_path, f"train: {{{train}}}\n"))
    assert spec.train is not None
    recipe = spec.train.recipe
    assert (recipe.epochs, recipe.steps) == length
    again = load_sweep(_write(tmp_path, spec.to_yaml()))
    assert again == spec
    assert again.train is not None
    assert again.train.recipe == recipe


@pytest.mark.parametrize("name", ["imagenet_published", "shapes", "shapes_halving"])
def test_shipped_recipes_are_read(name: str) -> None:
    spec = load_sweep(find_sweep(name)).train
    assert spec is not None
    if name == "imagenet_published":
        recipe = spec.recipe
        assert (recipe.steps, recipe.batch_size, recipe.lr, recipe.momentum) == (300_000, 1024, 0.5, 0.9)
        assert (recipe.lr_schedule, recipe.weight_decay, recipe.label_smoothing) == ("linear", 4e-5, 0.1)
        assert (recipe.colour_jitter, recipe.kernel_lr, recipe.warmup_epochs) == (0.4, 1, 0)
        assert (recipe.init, recipe.optimizer, recipe.nesterov, recipe.lr_parity) == (
            *("published", "sgd"),
            *(False, False),
        )
        assert (recipe.batch_norm, recipe.min_crop, recipe.ema, recipe.clip_grad_norm) == (
            *("running", 0.08),
            *(None, None),
        )


def test_figures_are_switched_off_and_on(tmp_path: Path) -> None:
    spec = load_sweep(_write(tmp_path, "latency: false\ntrain: true\n"))
    assert spec.latency is None
    assert spec.train is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone: [resnet18]", r"line 1: .*'backbone'.*'backbones'"),
        ("M: [1]\nbackbones: [resnet19]", r"line 2: .*'resnet19'.*'resnet18'"),
        ("M: [1]\nG:\n  - 1\n  - zero", r"line 4: G is 'zero'"),
        ("methods: []", r"line 1: methods is empty"),
        ("M: 3", r"line 1: M is '3'.*\[3\]"),
        ("M: [0]", r"line 1: M is '0'"),
        ("M: [true]", r"line 1: M is 'True'"),
        ("M: [.nan]", r"line 1: M is 'nan'"),
        ("resolution: [1.5]", r"line 1: resolution is '1.5'"),
        ("resolution: [true]", r"line 1: .*\btrue"),
        ("stem: [big]", r"line 1: .*stem 'big'"),
        ("methods: [[plain]]", r"line 1: .*method"),
        ("latency:\n  batch_sizes: [0]", r"line 2: latency.batch_sizes is '0'"),
        ("latency:\n  batchsize: [1]", r"line 2: .*'batchsize'.*'batch_sizes'"),
        ("latency: {dtypes: [float8]}", r"'float8'.*'float32', 'tf32', 'bfloat16' or 'float16'"),
        ("latency: {seconds: .inf}", r"latency.seconds is 'inf'"),
        ("train: {data: imagenet}", r"line 1: .*'imagenet'.*digits"),
        ("train: {lr: -1}", r"train.lr is '-1'"),
        ("train: {epochs: 2, steps: 3}", r"\bepochs\b.*\bsteps\b"),
        ("train: {schedule: halving}", r"'halving'.*max_epochs"),
        ("train: {schedule: halving, max_epochs: 9, epochs: 5}", r"\bepochs\b.*'halving'.*max_epochs"),
        ("train: {schedule: halving, max_epochs: 9, min_epochs: 10}", r"min_epochs is 10\b"),
        ("train: {eta: 3}", r"\beta\b.*halving"),
        ("train: {schedule: halving, max_epochs: 9, eta: 1}", r"train.eta is '1'"),
        ("train: {optimizer: adam}", r"'adam'.*'sgd' or 'adamw'"),
        ("train: {ema: 1}", r"train.ema is '1'"),
        ("train: 5", r"train is '5'"),
        ("points: [{method: se}]", r"points.backbone\b"),
        ("points:\n- backbone: resnet18\n- {backbone: resnet18, M: 2}", r"line 3: .*'plain'.*\bM\b"),
        ("points: []", r"points is empty"),
        ("M: [1]\nM: [2]", r"line 2: .*'M'"),
        ("M: [1", r"line \d: .*YAML"),
        ("- a", r"line 1: "),
        ("1: 2", r"line 1: "),
        ("\0", r"YAML"),
        ("&x [*x]", r"line 1: .*'\*x'"),
        ("M: &x [*x]", r"line 1: .*'\*x'"),
        ("M: [!!python/object:os.system x]", r"line 1: .*'.*os.system'"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line_with_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        expand(load_sweep(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_nested_aliases_do_not_blow_up(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(InputError, match=r"line \d+: .*\b(50,000|20)\b"):
        load_sweep(_write(tmp_path, "\n".join(lines)))


def test_not_text_and_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(InputError, match=r"x.yaml"):
        load_sweep(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"x.yaml.*UTF-8"):
        load_sweep(path)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        load_sweep(tmp_path)


def test_options_override_the_file_and_are_named_when_wrong(tmp_path: Path) -> None:
    path = _write(tmp_path, EXAMPLE)
    good: Overrides = {
        ("M",): ("--M", ["2", "1/2"]),
        ("train", "seeds"): ("--seeds", 5),
        ("latency",): ("--no-latency", False),
    }
    spec = load_sweep(path, good)
    assert spec.M == (2, Fraction(1, 2))
    assert spec.train is not None
    assert (spec.train.seeds, spec.train.epochs) == (5, 5)
    assert spec.latency is None
    with pytest.raises(InputError, match=r"^option --M: M is 'x'"):
        load_sweep(path, {("M",): ("--M", ["x"])})
    kept = load_sweep(path, {("train",): ("--train", True)})
    assert kept.train is not None
    assert kept.train.epochs == 5


def test_every_shipped_sweep_is_read_and_has_points() -> None:
    shipped = shipped_sweeps()
    assert {"quickstart", "published", "shufflenet_grid", "resnet50_grid"} <= shipped.keys()
    for path in shipped.values():
        assert space_of(load_sweep(path)).legal.any()


def test_quickstart_has_the_grid_and_the_baselines() -> None:
    space = expand(load_sweep(find_sweep("quickstart")))
    pairs = {(p.M, p.G) for p in space.points if p.M and p.G}
    assert pairs == {(1, 1), (2, 1), (2, 2), (8, 1), (8, 2)}
    assert {"plain", "se"} <= {p.method for p in space.points}


def test_a_sweep_is_found_by_path_before_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_sweep("quickstart") == shipped_sweeps()["quickstart"]
    (tmp_path / "quickstart").write_text("M: [1]")
    assert find_sweep("quickstart") == Path("quickstart")
    with pytest.raises(InputError, match=r"'resnet50grid'.*'resnet50_grid'"):
        find_sweep("resnet50grid")
    with pytest.raises(InputError, match=r"a/b\.yaml"):
        find_sweep("a/b.yaml")
