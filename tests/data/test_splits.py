"""What holds for the passes over every data set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.splits import everything, plain_split, write_folder
from tests.examples import examples
from wnexplore.data import Augment, Batch, EpochPass, Split, in_memory, load_data
from wnexplore.errors import InputError

BUSY = Augment(colour_jitter=0.4, flip=True)


def random_images(n: int, channels: int, size: int) -> torch.Tensor:
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    folder = write_folder(tmp_path_factory.mktemp("images"), 8, 1)
    return {
        "digits": load_data("digits", resolution=12, augment=BUSY).train,
        "shapes": load_data("shapes:3x50", resolution=9, augment=BUSY).train,
        "colours": plain_split(random_images(41, 3, 8), shift=1, flip=True, jitter=0.4),
        "folder": load_data(f"folder:{folder}", resolution=16, augment=BUSY).train,
    }


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def check_resume_and_shares(
    split: Split, seed: int, epoch: int, batch_size: int, start: int, world: int
) -> None:
    full = list(split.batches(batch_size, "cpu", EpochPass(seed, epoch)))
    assert len(full) == split.batches_per_pass(batch_size) == max(1, len(split) // batch_size)
    start %= len(full)
    assert same(list(split.batches(batch_size, "cpu", EpochPass(seed, epoch, start))), full[start:])
    assert list(split.batches(batch_size, "cpu", EpochPass(seed, epoch, len(full)))) == []
    world = min(world, batch_size, len(split))
    parts = [
        list(split.batches(batch_size, "cpu", EpochPass(seed, epoch), rank=r, world=world))
        for r in range(world)
    ]
    for number, batch in enumerate(full):
        for together, *shares in zip(batch, *(part[number] for part in parts), strict=True):
            for rank, share in enumerate(shares):
                assert torch.equal(share, together[rank::world])
    tests = [list(split.batches(batch_size, "cpu", rank=r, world=world)) for r in range(world)]
    images, labels = everything(split)
    for rank, test in enumerate(tests):
        assert torch.equal(torch.cat([images for images, _ in test]), images[rank::world])
        assert torch.equal(torch.cat([labels for _, labels in test]), labels[rank::world])


@examples(25)
@given(
    name=st.sampled_from(["digits", "shapes", "colours"]),
    seed=st.integers(0, 2**62),
    epoch=st.integers(0, 10**6),
    batch_size=st.integers(1, 60),
    start=st.integers(0, 500),
    world=st.integers(1, 5),
)
def test_a_pass_continues_and_is_shared_bit_for_bit(
    splits: dict[str, Split], name: str, seed: int, epoch: int, batch_size: int, start: int, world: int
) -> None:
    split = splits[name]
    check_resume_and_shares(split, seed, epoch, max(batch_size, len(split) // 40), start, world)


def test_a_pass_over_a_folder_continues_and_is_shared_bit_for_bit(splits: dict[str, Split]) -> None:
    check_resume_and_shares(splits["folder"], seed=3, epoch=1, batch_size=5, start=2, world=2)


@examples(10)
@given(size=st.integers(3, 40), batch_size=st.integers(1, 20))
def test_resized_batches_are_those_of_the_split_resized_and_kept(size: int, batch_size: int) -> None:
    images = random_images(20, 3, 12)
    kept = list(plain_split(images, resolution=size, shift=1).batches(batch_size, "cpu", EpochPass(0, 0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_memory, "KEPT_BYTES", 0)
        split = plain_split(images, resolution=size, shift=1)
        assert same(list(split.batches(batch_size, "cpu", EpochPass(0, 0))), kept)
        assert not split._kept


@pytest.mark.parametrize("name", ["digits", "shapes", "colours", "folder"])
def test_seed_and_epoch_alone_decide_a_pass(splits: dict[str, Split], name: str) -> None:
    split = splits[name]
    state = torch.get_rng_state()
    first = everything(split, EpochPass(1, 0), 8)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    next(iter(split.batches(8, "cpu", EpochPass(5, 5))))
    assert same([everything(split, EpochPass(1, 0), 8)], [first])
    for other in (EpochPass(2, 0), EpochPass(1, 1), EpochPass(0, 1)):
        assert not torch.equal(everything(split, other, 8)[0], first[0])
    assert not torch.equal(everything(split)[1][: len(first[1])], first[1])


def test_an_image_becomes_the_same_whatever_the_size_of_its_batch(splits: dict[str, Split]) -> None:
    split = splits["colours"]
    alone, numbers = everything(split, EpochPass(3, 1), 1)
    together, again = everything(split, EpochPass(3, 1), 41)
    assert torch.equal(numbers, again)
    assert torch.equal(alone, together)


def test_a_pass_leaves_out_an_incomplete_batch_and_repeats_no_image() -> None:
    split = plain_split(torch.zeros(10, 3, 4, 4, dtype=torch.uint8))
    _, labels = everything(split, EpochPass(0, 0), batch_size=4)
    assert len(labels) == 8 == len(set(labels.tolist()))
    assert sorted(everything(split, EpochPass(0, 0), batch_size=64)[1].tolist()) == list(range(10))
    assert everything(split, batch_size=4)[1].tolist() == list(range(10))


def test_order_is_uniform() -> None:
    split = plain_split(torch.zeros(4, 3, 1, 1, dtype=torch.uint8))
    orders = [
        tuple(everything(split, EpochPass(seed, epoch), 4)[1].tolist())
        for seed in range(30)
        for epoch in range(40)
    ]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    assert 20 < min(counts) <= max(counts) < 85  # 50 each, give or take four deviations


def test_more_processes_than_images_of_a_batch_are_refused() -> None:
    split = plain_split(torch.zeros(10, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"\b4 processes\b.*\b3\b"):
        next(iter(split.batches(3, "cpu", EpochPass(0, 0), rank=1, world=4)))
    assert list(split.batches(3, "cpu", rank=11, world=12)) == []


def test_the_split_of_a_folder_is_read_by_path_of_any_kind(tmp_path: Path) -> None:
    write_folder(tmp_path, 2, 1)
    data = load_data(f"folder:{tmp_path}", resolution=8)
    assert (data.name, data.num_classes, data.classes) == ("folder", 2, ("cat", "dog"))
