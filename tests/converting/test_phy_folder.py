"""Folders of Kilosort and Phy as they lie on people's disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.labs.sorted_files import phy_folder

from poyo_edge.converting import describe
from poyo_edge.errors import RecordingError

ALL_BUT_NOISE = 3


@pytest.mark.parametrize(
    "dat_path",
    ["'D:/My Data/day 3/x.bin'", "['D:/a.bin', 'D:/b.bin']", r"'C:\Users\lab\x.bin'", '""'],
)
def test_raw_data_may_be_named_in_any_way(tmp_path: Path, dat_path: str) -> None:
    phy_folder(tmp_path / "ks")
    (tmp_path / "ks" / "params.py").write_text(f"dat_path = {dat_path}\nsample_rate = 30000.\n")
    assert describe(tmp_path / "ks")["n_units"] == ALL_BUT_NOISE


def test_other_tables_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    phy_folder(tmp_path / "ks")
    (tmp_path / "ks" / "behavior.csv").write_text("time,cursor.vel.x\n0.1,0.5\n")
    (tmp_path / "ks" / "metrics.csv").write_text(",cluster_id,group\n0,0,noise\n")
    assert describe(tmp_path / "ks")["n_units"] == ALL_BUT_NOISE


def test_the_labels_of_the_last_save_win(tmp_path: Path) -> None:
    phy_folder(tmp_path / "ks")
    old = "cluster_id\tch\tgroup\n0\t1\tnoise\n3\t1\t\n\t4\tgood\n"
    (tmp_path / "ks" / "cluster_info.tsv").write_text(old)
    about = describe(tmp_path / "ks")
    assert about["unit_ids"] == ["ks/unit_0", "ks/unit_7", "ks/unit_9"]
    assert "cluster_info.tsv calls 2 clusters otherwise; cluster_group.tsv was taken" in " ".join(
        about["notes"]
    )
    (tmp_path / "ks" / "cluster_group.tsv").unlink()
    about = describe(tmp_path / "ks")
    assert about["unit_ids"] == ["ks/unit_3", "ks/unit_7", "ks/unit_9"]
    assert "1 rows without a cluster's number label nothing" in " ".join(about["notes"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("n_channels_dat = 4\n", r"params\.py: sample_rate: expected a line .* got none; write"),
        (None, r"params\.py: file: expected Phy's parameters, got no such file; write the line"),
    ],
)
def test_a_folder_without_a_rate_is_told_what_to_write(
    tmp_path: Path, params: str | None, message: str
) -> None:
    phy_folder(tmp_path / "ks")
    (tmp_path / "ks" / "params.py").unlink()
    if params is not None:
        (tmp_path / "ks" / "params.py").write_text(params)
    with pytest.raises(RecordingError, match=message):
        describe(tmp_path / "ks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: np.save(d / "spike_times.npy", np.arange(3)), "a cluster for each spike"),
        (lambda d: np.save(d / "spike_times.npy", np.arange(2000.0)), "whole numbers"),
        (lambda d: (d / "spike_clusters.npy").write_text("?"), "numpy cannot read"),
        (
            lambda d: (d / "cluster_group.tsv").write_text(
                "cluster_id\tgroup\n0\tnoise\n3\tnoise\n7\tnoise\n9\tnoise\n"
            ),
            "at least one spike that is no noise",
        ),
    ],
)
def test_damaged_folders_are_one_sentence(tmp_path: Path, change: object, message: str) -> None:
    phy_folder(tmp_path / "ks")
    assert callable(change)
    change(tmp_path / "ks")
    with pytest.raises(RecordingError, match=message):
        describe(tmp_path / "ks")
