import os

import pandas as pd
import pytest

from nic_helpers.sweep.dataset import Dataset, SweepError


def rows(unit, count=3):
    return pd.DataFrame({"unit": unit, "image": [f"{k}.png" for k in range(count)], "value": range(count)})


@pytest.fixture
def data(tmp_path):
    data = Dataset(tmp_path / "rows-of-mine")
    with data.writing():
        for unit in "ab":
            data.write(unit, rows(unit))
    return data


def test_rows_come_back_in_the_order_asked_for(data):
    assert data.done() == {"a", "b"}
    assert list(data.read(["b", "missing", "a"])["unit"]) == list("bbbaaa")
    assert Dataset(data.folder).read().equals(data.read(["a", "b"]))
    assert len(Dataset(data.folder / "nowhere").read()) == 0
    assert len(pd.read_parquet(data.folder / "rows")) == 6  # one dataset for any reader


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_a_damaged_file_is_named_removed_and_only_that(data, damage):
    path = next((data.folder / "rows").glob("a-*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"{path.name} is damaged: its unit"):
        assert Dataset(data.folder).done() == {"b"}
    assert path.exists()  # who only looks removes nothing
    with data.writing(), pytest.warns(UserWarning, match=f"{path.name} is damaged: removed"):
        assert data.done() == {"b"}
    assert not path.exists()


def test_new_rows_replace_those_of_another_program_and_only_once_they_are_whole(data):
    other = Dataset(data.folder)
    with other.writing():
        other.done()
        other.write("a", rows("a", 5).assign(versions="new"))
        assert len(list((data.folder / "rows").glob("a-*"))) == 1
        other.write("b", rows("b").assign(versions="old"))
    assert other.by_others("new") == {"b"} == Dataset(data.folder).by_others("new")
    assert other.by_others("old") == {"a"} and other.by_others("") == {"a", "b"}
    assert len(other.read(["a"])) == 5


def test_killed_between_new_rows_and_the_removal_of_the_old_only_the_new_count(data):
    old = next((data.folder / "rows").glob("a-*"))
    kept = old.read_bytes()
    with data.writing():
        data.write("a", rows("a", 5))
    old.write_bytes(kept)
    os.utime(old, (1, 1))
    assert data.done() == {"a", "b"} and len(data.read(["a"])) == 5
    assert old.exists()  # who only looks removes nothing
    with data.writing():
        assert data.done() == {"a", "b"} and len(data.read(["a"])) == 5 and not old.exists()


def test_half_written_files_of_a_killed_run_are_cleared(data):
    leftover = data.folder / "rows" / "c-0123.parquet.part"
    leftover.write_bytes(b"half")
    with data.writing():
        assert not leftover.exists() and data.done() == {"a", "b"}


def test_two_runs_cannot_write_to_one_folder(data):
    with data.writing(), pytest.raises(SweepError, match="another run is writing"), Dataset(data.folder).writing():
        pass
    with Dataset(data.folder).writing():  # and it is free again
        pass


def test_a_disk_without_locks_is_told_of_and_a_folder_that_cannot_be_written_is_named(data, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(95, "Operation not supported")

    with monkeypatch.context() as here:
        here.setattr(fcntl, "flock", none)
        with pytest.warns(UserWarning, match="no lock can be had"), data.writing():
            data.write("c", rows("c"))
    (data.folder / "file").write_text("")
    with (
        pytest.raises(SweepError, match=r"cannot write to .*NIC_BUILD_DIR"),
        Dataset(data.folder / "file" / "x").writing(),
    ):
        pass
    with pytest.raises(ValueError, match="no column 'unit'"):
        data.add(pd.DataFrame({"image": ["a"]}))


def test_failures_are_kept_until_the_unit_succeeds(data):
    data.fail("c", "PGD on a codec", "Traceback …\nValueError: no")
    assert data.failures()["c"] == {"unit": "PGD on a codec", "error": "Traceback …\nValueError: no"}
    data.write("c", rows("c"))
    assert not data.failures()


def test_a_published_table_is_taken_over_whole(data, tmp_path):
    other = Dataset(tmp_path / "other")
    other.add(pd.concat([data.read(), rows("c")]))
    assert other.done() == {"a", "b", "c"} and other.read(["a", "b"]).equals(data.read(["a", "b"]))


def test_a_full_disk_stops_with_what_to_do_and_leaves_nothing_half_written(tmp_path):
    import resource  # not on Windows

    # a limit on the size of files makes the system refuse the write in its middle, as a full disk does
    data, (soft, hard) = Dataset(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    large = pd.DataFrame({"unit": "large", "value": [str(hash(str(k))) for k in range(9999)]})
    with data.writing():
        data.write("small", pd.DataFrame({"unit": ["small"]}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(SweepError, match="free some space, then run again"):
                data.write("large", large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Dataset(tmp_path).done() == {"small"} and not list(tmp_path.rglob("*.part"))
