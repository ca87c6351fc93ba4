"""What is made of files that change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from app.settings.files import Reloaded, read_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("first")
    return file


def reloaded(file: Path, **options) -> Reloaded[str]:
    def make() -> str:
        if (text := read_text(str(file))) == "junk":
            raise ValueError(f"{file}: accepted is no junk")
        return text

    return Reloaded("A_FILE", [str(file)], make, **options)


def test_is_made_anew_when_its_file_has_changed(file):
    value = reloaded(file)
    assert value.current() == "first"
    file.write_text("second")
    assert value.current() == "second"


def test_is_not_made_anew_while_its_file_is_the_same(file):
    made = []
    value = Reloaded("A_FILE", [str(file)], lambda: made.append(1))
    for _ in range(3):
        value.current()
    assert made == [1]


def test_a_link_that_is_swapped_is_a_change(tmp_path):
    """As Kubernetes has it: what is linked to has the same size and the same time."""
    for name in ("first", "other"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "secret").write_text(name)
        os.utime(folder / "secret", (1, 1))
    link = tmp_path / "data"
    link.symlink_to("first")
    value = reloaded(link / "secret")
    assert value.current() == "first"
    (tmp_path / "new").symlink_to("other")
    (tmp_path / "new").replace(link)
    assert value.current() == "other"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_text("junk")])
def test_what_cannot_be_used_leaves_what_was_there_and_is_told_once(file, spoil, caplog):
    value = reloaded(file)
    value.current()
    spoil(file)
    with caplog.at_level(logging.WARNING):
        assert [value.current(), value.current()] == ["first", "first"]
    (line,) = caplog.messages
    assert line.startswith("A_FILE has changed and cannot be used (")
    file.write_text("second")
    assert value.current() == "second"


def test_what_never_could_be_used_raises_why(file):
    file.write_text("junk")
    with pytest.raises(ValueError, match="accepted is no junk"):
        reloaded(file).current()
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        reloaded(file).current()


def test_is_not_looked_at_more_often_than_is_said(file):
    now = 0.0
    value = reloaded(file, pause=1.0, now=lambda: now)
    value.current()
    file.write_text("second")
    now = 0.9
    assert value.current() == "first"
    now = 1.0
    assert value.current() == "second"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_line_end_of_an_editor_is_no_part_of_a_secret(file, end):
    file.write_bytes(b" s3cret " + end.encode())
    assert read_text(str(file)) == " s3cret "


def test_what_is_no_text_is_not_shown(file):
    file.write_bytes(b"s3cret\xff")
    with pytest.raises(ValueError, match="is no UTF-8") as raised:
        read_text(str(file))
    assert "s3cret" not in str(raised.value)
    assert raised.value.__suppress_context__
