"""What works beside a run and breaks: processes that read images, TensorBoard's thread. One error, no traceback."""

import errno
import os
import signal
import sys
from contextlib import suppress

import numpy as np
import pytest

from elastic_cnn.data.sampler import TestBatches, closed, make_loader
from elastic_cnn.tasks.failures import readers_told_once
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.run_log import RunLog


class Numbers:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"image": np.zeros((3, 4, 4), np.float32), "index": index}


@pytest.mark.parametrize("killed", [False, True])
def test_readers_end_with_the_block(killed):
    loader = make_loader(Numbers(), TestBatches(64, 2, 0, 1), seed=0, workers=2)
    with closed(loader):
        next(iter(loader))
        workers = loader._iterator._workers
        if killed:
            os.kill(workers[0].pid, signal.SIGKILL)
            with suppress(RuntimeError):  # the watch speaks up
                workers[0].join(10)
    for worker in workers:
        worker.join(10)
    assert [worker.is_alive() for worker in workers] == [False, False]
    assert loader._iterator is None


@pytest.mark.parametrize(
    ("text", "told"), [("DataLoader worker (pid 7) is killed by signal: Killed.", False), ("a fault", True)]
)
def test_the_watch_is_silent_where_nothing_can_be_raised(text, told, monkeypatch):
    class Fails:
        def __del__(self):
            raise RuntimeError(text)

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with readers_told_once():
        Fails()
    assert bool(seen) == told


def fill(folder):
    with RunLog(RunFolder(folder)) as log:
        for step in range(1000):
            log.append("train", 1, step, {"loss": 1.0})


@pytest.mark.parametrize("whole", [0, 3])  # records before the disk is full; the first is written as the file is made
def test_tensorboards_thread_fails_in_words(whole, tmp_path, monkeypatch, capfd):
    from tensorboard.summary.writer import record_writer

    written = []
    write = record_writer.RecordWriter.write

    def full(self, data):
        written.append(data)
        if len(written) <= whole:
            return write(self, data)
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "whole").mkdir()
    fill(tmp_path / "whole")
    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    with pytest.raises(OSError, match=r"tensorboard could not be written \(No space left on device\)"):
        fill(tmp_path)
    assert "Traceback" not in capfd.readouterr().err
