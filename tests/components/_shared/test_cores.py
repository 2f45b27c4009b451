import os
import subprocess
import sys

import pytest

from penstock.components._shared import cores

V1 = "sys/fs/cgroup/cpu"


@pytest.fixture(autouse=True)
def eight(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
        (
            "0::/pod/step\n",
            {"sys/fs/cgroup/pod/cpu.max": "300000 100000\n", "sys/fs/cgroup/pod/step/cpu.max": "max 100000\n"},
            3,
        ),
        ("4:cpu:/a\n", {f"{V1}/a/cpu.cfs_quota_us": "400000\n", f"{V1}/a/cpu.cfs_period_us": "100000\n"}, 4),
        ("4:cpu:/\n", {f"{V1}/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 8),
        ("", {}, 8),
    ],
)
def test_the_least_of_affinity_and_quotas_counts(cgroup, files, expected, system):
    assert cores.cores(system(cgroup, **files)) == expected


def test_libraries_start_no_more_threads_than_that_unless_the_user_says_so(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    cores.limit_threads()  # no quota
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    monkeypatch.setattr(cores, "cores", lambda: 3)
    cores.limit_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["TF_NUM_INTRAOP_THREADS"]) == ("3", "5")


def test_xgboost_heeds_it():
    code = """
import os
os.cpu_count = lambda: 64
from penstock.components._shared import cores
cores.cores = lambda root=None: 1
from penstock.components._shared.fitting.frameworks import framework
framework("xgboost")
import numpy as np, xgboost
before = len(os.listdir("/proc/self/task"))
xgboost.train({}, xgboost.DMatrix(np.random.rand(50_000, 20), label=np.random.rand(50_000)), 5)
print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["_KFP_RUNTIME"] = "true"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 0
