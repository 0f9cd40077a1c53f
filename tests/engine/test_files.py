"""Files are whole or not there."""

import pytest

from xai_utils.engine import written_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "page.html"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole" and names(path.parent) == ["page.html"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_error_the_old_one_stays(tmp_path, error):
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(error), written_whole(tmp_path / "page.html") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "page.html").read_text() == "old" and names(tmp_path) == ["page.html"]


def test_what_is_there_may_be_kept(tmp_path):
    path = tmp_path / "run.yaml"
    with written_whole(path, replace=False) as temporary:
        temporary.write_text("first")
    with pytest.raises(FileExistsError), written_whole(path, replace=False) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first" and names(tmp_path) == ["run.yaml"]
