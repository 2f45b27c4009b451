import pytest


@pytest.fixture
def system(tmp_path):
    """A function that writes the files of a system, and returns the folder that stands for its root."""

    def write(cgroup, **files):
        for name, text in {"proc/self/cgroup": cgroup, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write
