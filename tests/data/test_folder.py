from __future__ import annotations

import os
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.splits import everything, write_folder, write_images
from wnexplore.data import Augment, EpochPass, load_data
from wnexplore.errors import InputError, RunError

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, 5, 2)


def test_folder_is_tested_on_the_centre_of_the_resized_image(folder: Path) -> None:
    data = load_data(f"folder:{folder}", resolution=28)
    assert (data.name, data.num_classes, len(data.train), len(data.test)) == ("folder", 2, 10, 4)
    images, labels = everything(data.test, batch_size=3)
    assert labels.tolist() == [0, 0, 1, 1]
    # 28 · 256/224 = 32 is the short side: 80x60 becomes 42x32, its centre 28x28 starts at (7, 2).
    image = Image.open(folder / "val" / "cat" / "0.png").resize((42, 32), Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((7, 2, 35, 30))) / 255
    expected = (pixels - MEAN.numpy()) / STD.numpy()
    assert images.shape == (4, 3, 28, 28)
    np.testing.assert_allclose(images[0].permute(1, 2, 0), expected, atol=0.03)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)
def test_crops_are_the_same_however_many_workers_there_are(folder: Path) -> None:
    split = load_data(f"folder:{folder}", resolution=16).train
    images, _ = everything(split, EpochPass(0, 0), batch_size=3)
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        alone, _ = everything(split, EpochPass(0, 0), batch_size=3)
    finally:
        os.sched_setaffinity(0, mask)
    assert torch.equal(images, alone)


def write_gradients(folder: Path, count: int) -> None:
    """Images of 80x60 pixels, red growing from left to right, green from top to bottom."""
    across, down = np.meshgrid(np.arange(80) * 3, np.arange(60) * 4)
    folder.mkdir(parents=True)
    image = Image.fromarray(np.stack([across, down, 0 * across], axis=2).astype(np.uint8))
    for number in range(count):
        image.save(folder / f"{number}.png")


def test_crops_have_the_shares_requested_and_half_are_mirrored(tmp_path: Path) -> None:
    write_gradients(tmp_path / "train" / "x", 60)
    write_gradients(tmp_path / "val" / "x", 1)

    def crops(augment: Augment) -> tuple[list[float], float]:
        """Shares of the image's area, from the slopes of the colours, and the share of mirrored ones."""
        split = load_data(f"folder:{tmp_path}", resolution=16, augment=augment).train
        images, _ = everything(split, EpochPass(0, 0))
        pixels = (images * STD.view(3, 1, 1) + MEAN.view(3, 1, 1)) * 255
        width = (pixels[:, 0, :, 12] - pixels[:, 0, :, 3]).mean(1) / 9 * 16 / 3 / 80
        height = (pixels[:, 1, 12] - pixels[:, 1, 3]).mean(1) / 9 * 16 / 4 / 60
        return (width * height).abs().tolist(), (width < 0).float().mean().item()

    areas, mirrored = crops(Augment(min_crop=0.6))
    assert 0.55 < min(areas) < 0.8 < max(areas) < 1.05
    assert 0.25 < mirrored < 0.75
    areas, mirrored = crops(Augment(flip=False))
    assert min(areas) < 0.5
    assert mirrored == 0


def damage(folder: Path) -> dict[str, str]:
    """Files that can't be read, by how."""
    good = (folder / "train" / "dog" / "0.png").read_bytes()
    Image.open(folder / "train" / "dog" / "0.png").save(folder / "x.jpg")
    jpeg = (folder / "x.jpg").read_bytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    files = {
        "bomb.png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""),
        "empty.png": b"",
        "no image.png": b"not a picture",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": good[: len(good) // 2],
    }
    for name, content in files.items():
        (folder / "train" / "cat" / name).write_bytes(content)
    (folder / "train" / "cat" / "dangling.png").symlink_to("nowhere")
    (folder / "train" / "cat" / "folder.png").mkdir()
    return {str(folder / "train" / "cat" / name): name for name in [*files, "dangling.png"]}


def test_damaged_images_are_left_out_and_named(folder: Path) -> None:
    bad = damage(folder)
    split = load_data(f"folder:{folder}", resolution=16).train
    assert split.damaged == ()
    batches = list(split.batches(4, "cpu"))
    assert set(split.damaged) == set(bad)
    assert sum(len(labels) for _, labels in batches) == 10
    assert all(len(images) == len(labels) > 0 for images, labels in batches)
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0] * 5 + [1] * 5
    found = split.damaged
    images, labels = everything(split, EpochPass(0, 0), batch_size=16)
    assert (len(images), len(labels)) == (10, 10)
    assert split.damaged == found  # each once, in the order of their discovery


def test_other_images_are_as_without_the_damaged_ones(folder: Path) -> None:
    split = load_data(f"folder:{folder}", resolution=16, augment=Augment(colour_jitter=0.4)).train
    full = list(split.batches(5, "cpu", EpochPass(7, 0)))
    _, order = everything(split, EpochPass(7, 0), batch_size=10)
    (folder / "train" / "dog" / "3.png").write_bytes(b"not a picture")
    rest = list(split.batches(5, "cpu", EpochPass(7, 0)))
    lost = 0
    for (images, _), (fewer, _) in zip(full, rest, strict=True):
        kept = [any(torch.equal(image, other) for other in fewer) for image in images]
        assert sum(kept) == len(fewer)
        lost += len(images) - len(fewer)
    assert lost == 1
    assert len(order) == 10


def test_a_batch_without_any_image_is_not_there_and_a_share_without_any_ends_the_run(folder: Path) -> None:
    (folder / "train" / "dog" / "3.png").write_bytes(b"not a picture")
    split = load_data(f"folder:{folder}", resolution=16).train
    assert len(list(split.batches(1, "cpu", EpochPass(0, 0)))) == 9 == split.batches_per_pass(1) - 1
    assert len(list(split.batches(1, "cpu"))) == 9
    with pytest.raises(RunError, match=r"dog/3\.png"):
        [list(split.batches(2, "cpu", EpochPass(0, 0), rank=rank, world=2)) for rank in (0, 1)]


def test_a_folder_mostly_damaged_ends_the_run_with_the_first(tmp_path: Path) -> None:
    write_folder(tmp_path, 9, 1)
    for number in range(9):
        (tmp_path / "train" / "cat" / f"a{number}.png").write_bytes(b"not a picture")
    split = load_data(f"folder:{tmp_path}", resolution=8).train
    assert sum(len(labels) for _, labels in split.batches(1, "cpu")) == 18  # no more than half
    split = load_data(f"folder:{tmp_path}", resolution=8).train
    for number in range(2):
        (tmp_path / "train" / "cat" / f"{number}.png").write_bytes(b"not a picture")
    with pytest.raises(RunError, match=r"^11 of 20 .*/cat/0\.png: [^\n]+$"):
        list(split.batches(4, "cpu"))


def test_images_much_longer_than_wide_are_read(folder: Path) -> None:
    Image.new("RGB", (1, 20000), (255, 0, 0)).save(folder / "val" / "cat" / "0.png")
    Image.new("L", (20000, 2), 128).save(folder / "val" / "cat" / "1.png")
    data = load_data(f"folder:{folder}", resolution=16)
    images, _ = everything(data.test)
    assert images.shape == (4, 3, 16, 16)
    assert ((images[0] * STD.view(3, 1, 1) + MEAN.view(3, 1, 1))[0] == 1).all()
    assert data.test.damaged == ()


def test_a_worker_that_dies_ends_the_run_in_one_line(folder: Path) -> None:
    for name in ("cat", "dog"):
        write_images(folder / "train" / f"{name}s", 100)
        write_images(folder / "val" / f"{name}s", 1)
    batches = load_data(f"folder:{folder}", resolution=64).train.batches(1, "cpu", EpochPass(0, 0))
    before = children()
    next(batches)
    for worker in children() - before:
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(RunError, match=r"^[^\n]*\btrain\b[^\n]+$"):
        list(batches)


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("needs Linux's list of child processes")
    return set(map(int, listed.read_text().split()))


def test_folder_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            load_data(f"folder:{tmp_path}", resolution=32)

    refused(r"/train\b.*/val\b")
    write_images(tmp_path / "train" / "cat", 1)
    refused(r"/val\b")
    (tmp_path / "val").mkdir()
    refused(r"val/CLASS")
    (tmp_path / "val" / "cat").mkdir()
    refused(r"\bcat\b")
    write_images(tmp_path / "val" / "dog", 1)
    (tmp_path / "val" / "cat").rmdir()
    refused(r"'cat'")


def test_deep_images_are_scaled_alike_in_training_and_test(tmp_path: Path) -> None:
    for part, largest in (("train", 900), ("val", 3000)):
        (tmp_path / part / "x").mkdir(parents=True)
        for number, value in enumerate((100, largest)):
            image = Image.fromarray(np.full((20, 20), value, np.uint16))
            image.save(tmp_path / part / "x" / f"{number}.png")
    data = load_data(f"folder:{tmp_path}", resolution=16)
    (trained, _), (tested, _) = everything(data.train, EpochPass(0, 0)), everything(data.test)
    for images, largest in ((trained, 900), (tested, 3000)):
        pixels = images * STD.view(3, 1, 1) + MEAN.view(3, 1, 1)
        found = sorted(pixels.mean((1, 2, 3)).tolist())
        assert found == pytest.approx([100 / 4095, largest / 4095], abs=1e-5)
        assert pixels.std((1, 2, 3)).max() < 1e-5
