"""Which image files count, against torchvision's ImageFolder where there is nothing odd."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from tests.data.splits import everything, write_folder
from tests.examples import examples
from wnexplore.data import EpochPass, load_data
from wnexplore.data.folder_listing import image_files, listing_hash
from wnexplore.errors import InputError, RunError

NAMES = st.sampled_from(["a", "b", "B", "10", "2", "é", "x y", "z.png", "c.d"])
FILES = st.sampled_from(["1.png", "2.JPG", "10.jpeg", "u.tif", "notes.txt", "thumbs.db", "é.webp"])


@given(
    paths=st.sets(st.tuples(NAMES, st.lists(NAMES, max_size=2).map(tuple), FILES), min_size=1, max_size=12)
)
@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_and_labels_are_those_of_torchvision(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, tuple[str, ...], str]]
) -> None:
    root = tmp_path_factory.mktemp("images")
    for name, folders, file in paths:
        place = root.joinpath(name, *folders)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / file).is_dir():
            (place / file).write_bytes(b"")
    for name in {name for name, _, _ in paths}:
        (root / name / "0.png").write_bytes(b"")
    expected, found = ImageFolder(root), image_files(root)
    assert found.classes == tuple(expected.classes)
    assert found.samples == expected.samples


def test_hidden_files_and_folders_are_neither_classes_nor_images(tmp_path: Path) -> None:
    write_folder(tmp_path, 2, 1)
    for part in ("train", "val"):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git"):
            (tmp_path / part / name).mkdir()
        (tmp_path / part / ".DS_Store").write_bytes(b"\0")
        (tmp_path / part / "readme.png").write_bytes(b"no class")
        for name in ("._0.png", ".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png"):
            path = tmp_path / part / "cat" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"no image")
    data = load_data(f"folder:{tmp_path}", resolution=8)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (4, 2)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 1)
    cat, dog = tmp_path / "train" / "cat", tmp_path / "train" / "dog"
    (cat / "again").symlink_to(cat)
    (tmp_path / "train" / "here").symlink_to(".")
    (tmp_path / "train" / "above").symlink_to("..")
    (cat / "up").symlink_to("..")
    (cat / "further up").symlink_to("../../..")
    (dog / "self").symlink_to("self")
    (dog / "more").symlink_to(tmp_path / "val" / "dog")
    found = image_files(tmp_path / "train")
    assert found.classes == ("cat", "dog")
    names = [(os.path.relpath(path, tmp_path / "train"), label) for path, label in found.samples]
    assert names == [
        *(("cat/0.png", 0), ("cat/1.png", 0), ("cat/2.png", 0)),
        *(("dog/0.png", 1), ("dog/1.png", 1), ("dog/2.png", 1), ("dog/more/0.png", 1)),
    ]


def test_pipes_among_the_images_are_left_out_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 1)
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    data = load_data(f"folder:{tmp_path}", resolution=8)
    images, _ = everything(data.train, EpochPass(0, 0))
    assert len(images) == 6
    assert data.train.damaged == (str(tmp_path / "train" / "cat" / "pipe.png"),)


@pytest.mark.parametrize("part", ["train", "val"])
def test_images_none_of_which_can_be_read_are_reported_before_the_training(tmp_path: Path, part: str) -> None:
    write_folder(tmp_path, 3, 3)
    for path in (tmp_path / part).rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=rf"/{part}\b.*0\.png: "):
        load_data(f"folder:{tmp_path}", resolution=8)


def test_images_that_become_unreadable_end_the_pass(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    data = load_data(f"folder:{tmp_path}", resolution=8)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    for split, training in ((data.train, EpochPass(0, 0)), (data.test, None)):
        with pytest.raises(RunError, match=r"\.png: "):
            list(split.batches(2, "cpu", training))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cant_be_read_is_reported(tmp_path: Path) -> None:
    write_folder(tmp_path, 1, 1)
    (tmp_path / "train" / "cat").chmod(0)
    with pytest.raises(InputError, match=r"cat: Permission denied"):
        load_data(f"folder:{tmp_path}", resolution=8)


def test_names_of_classes_are_reported_without_control_characters(tmp_path: Path) -> None:
    write_folder(tmp_path, 1, 1)
    (tmp_path / "train" / "bad\n\x1b[31m").mkdir()
    with pytest.raises(InputError, match=r"bad\\n\\x1b\[31m") as error:
        load_data(f"folder:{tmp_path}", resolution=8)
    assert str(error.value).isprintable()


def test_an_image_of_any_shape_takes_little_memory(tmp_path: Path) -> None:
    write_folder(tmp_path, 1, 1)
    for name, size in (("wide.png", (20000, 1)), ("high.png", (1, 20000))):
        Image.new("L", size, 255).save(tmp_path / "train" / "cat" / name)
        Image.new("I;16", size, 4095).save(tmp_path / "val" / "cat" / name)
    data = load_data(f"folder:{tmp_path}", resolution=224)
    for split, training in ((data.train, EpochPass(0, 0)), (data.test, None)):
        images, _ = everything(split, training)
        assert images.shape[1:] == (3, 224, 224)
        assert split.damaged == ()


def test_what_the_files_hold_tells_them_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, 4, 1)
    files = sorted((tmp_path / "train").rglob("*.png"))

    def hashed() -> str:
        return listing_hash(*(image_files(tmp_path / part) for part in ("train", "val")))

    def changed(change: Callable[[bytes], bytes]) -> list[bool]:
        """For each file whether its being changed changes the hash."""
        first, found = hashed(), []
        for path in files:
            before = path.read_bytes()
            path.write_bytes(change(before))
            found.append(hashed() != first)
            path.write_bytes(before)
            os.utime(path, (1, 1))
        assert hashed() == first
        return found

    def last_byte(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    assert changed(last_byte) == [True] * 8
    # Of a data set too large to be read: every file by its size, and some by what they hold.
    monkeypatch.setattr("wnexplore.data.folder_listing.MOST_FILES", 5)
    assert changed(last_byte) == [True, False] * 4
    assert changed(lambda data: data + b"\0") == [True] * 8
    names = hashed().partition("-")[0]
    files[0].rename(files[0].with_name("z.png"))
    assert hashed().partition("-")[0] != names


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    write_folder(tmp_path, 1, 1)
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    (tmp_path / "train" / "cat" / "nothing.png").symlink_to("nowhere")
    assert listing_hash(image_files(tmp_path / "train"))
