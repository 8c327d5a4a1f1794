"""What people install: the wheel, with its sweep files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_holds_the_sweeps_and_finds_them_from_any_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("wnexplore-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"wnexplore/sweeps/{path.name}" for path in (ROOT / "sweeps").glob("*.[yc]*")}
    assert shipped
    assert shipped | {"wnexplore/py.typed"} <= names
    assert not [name for name in names if name.startswith("tests/")]

    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import wnexplore\nfrom wnexplore.design.shipped import find_sweep, published_table\n"
        "print(wnexplore.__file__, find_sweep('quickstart'), published_table(), sep='\\n')"
    )
    message = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [Path(line).relative_to(tmp_path).as_posix() for line in message.stdout.split()] == [
        "site/wnexplore/__init__.py",
        "site/wnexplore/sweeps/quickstart.yaml",
        "site/wnexplore/sweeps/published.csv",
    ]


def test_public_names_are_there_and_load_when_used() -> None:
    import wnexplore

    for name in wnexplore.__all__:
        assert getattr(wnexplore, name) is not None
    assert set(wnexplore.__all__) <= set(dir(wnexplore))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = wnexplore.nonsense
