"""Names and errors of anybody's are texts to the terminal, wherever they are printed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.table import Table

from tests.cli.conftest import Command
from tests.sweeps import write_sweep
from wnexplore.cli.output import named_damaged, notify
from wnexplore.cli.terminal import PlainConsole

HOSTILE = "a\x1b[31m\x1b]0;t\x07 [red]b[/red] :smile: \u202ec\r"
PLAIN = "a\\x1b[31m\\x1b]0;t\\x07 [red]b[/red] :smile: \\u202ec\\r"


def drawn(*, terminal: bool) -> tuple[PlainConsole, io.StringIO]:
    console = PlainConsole(width=300)
    console.file = screen = io.StringIO()
    console._force_terminal = terminal
    return console, screen


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_in_a_text_is_obeyed(terminal: bool) -> None:
    console, screen = drawn(terminal=terminal)
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE, title_style="", caption_style="", box=None)
    table.header_style = ""
    table.add_row(HOSTILE)
    console.print(HOSTILE, highlight=False)
    console.print(table)
    assert screen.getvalue().count(PLAIN) == 5
    assert "\x1b[31m" not in screen.getvalue()
    assert not set("\x07\r\u202e") & set(screen.getvalue())


FAILS = """
from own import nn, tiny

class Fails(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        if len(x) == 3:
            raise RuntimeError({text!r})
        return self.network(x)

def fails(num_classes=10):
    return Fails(tiny(num_classes))
"""


def test_the_error_of_a_network_is_a_text_in_its_profile(command: Command, tmp_path: Path) -> None:
    write_sweep(tmp_path)
    (tmp_path / "fails.py").write_text(FAILS.format(text=HOSTILE.strip()))
    options = ("--batch-size", 3, "--resolution", 8, "--device", "cpu", "--seconds", 0.001)
    done = command("profile", "--backbone", f"{tmp_path / 'fails.py'}:fails", *options)
    assert done.code == 1
    assert f"RuntimeError: {PLAIN.removesuffix(chr(92) + 'r')}" in done.out
    assert "\x1b" not in done.out + done.err


def test_the_reason_why_an_image_is_damaged_is_a_text_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """It may come from a store or a checkpoint of anybody's."""
    notify(f"skipped: {named_damaged(HOSTILE, {HOSTILE: HOSTILE + 100_000 * 'x'})}")
    notify(f"skipped: {named_damaged(HOSTILE, {})}")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"skipped: {PLAIN}: {PLAIN}xxx")
    assert len(first) < 500
    assert second == f"skipped: {PLAIN}"


def test_a_network_that_fails_in_its_training_is_told_in_one_line(command: Command, tmp_path: Path) -> None:
    write_sweep(tmp_path)
    text = FAILS.format(text="no " * 1000 + HOSTILE).replace("len(x) == 3", "self.training and len(x) == 110")
    (tmp_path / "fails.py").write_text(text)
    options = ("--data", "digits", "--batch-size", 110, "--epochs", 1, "--resolution", 8, "--device", "cpu")
    named = ("--backbone", f"{tmp_path / 'fails.py'}:fails")
    done = command("train", *named, *options, "--log-every", 1000, "--out", tmp_path / "run")
    assert done.code == 1
    assert f"{tmp_path / 'fails.py'}:fails" in done.err
    assert "the network failed in step" in done.err
    assert "RuntimeError: no no no" in done.err
    assert done.err.count("\n") == 1
    assert len(done.err) < 1000
