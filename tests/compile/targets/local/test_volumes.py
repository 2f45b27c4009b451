"""Claims of a cluster are folders here, created and deleted as Kubeflow's driver does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl, kubernetes

from penstock.compile import from_kfp, graph, launcher
from penstock.compile.targets.local import volumes

NAMES = {"pipeline_job_name": "My_Pipeline-20260101"}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def plain():
    pass


@pytest.fixture
def tasks(compiled):
    @dsl.pipeline(name="claims")
    def claims(name: str = "x"):
        made = kubernetes.CreatePVC(access_modes=["ReadWriteOnce"], size="1Gi", pvc_name="data")
        kubernetes.CreatePVC(access_modes=["ReadWriteOnce"], size="1Gi", pvc_name_suffix="-more").after(plain())
        kubernetes.DeletePVC(pvc_name=made.outputs["name"])

    return from_kfp.read(compiled(claims)).dag.tasks


def create(tasks: dict[str, graph.Task], folder, **parameters):
    return volumes.carry_out(tasks["createpvc"], parameters, folder, NAMES)["name"]


def test_only_the_two_components_of_kfp_are_volume_tasks(tasks):
    found = {name for name, task in tasks.items() if volumes.is_volume_task(task.component)}
    assert found == {"createpvc", "createpvc-2", "deletepvc"}


def test_a_volume_is_created_once_and_deleted_with_what_is_in_it(tasks, tmp_path):
    folder = tmp_path / "volumes"
    assert create(tasks, folder, pvc_name="data", size="5Gi", storage_class_name="fast") == "data"
    (folder / "data" / "inner").mkdir()
    (folder / "data" / "inner" / "file").write_text("")
    with pytest.raises(launcher.TaskError, match=r"createpvc: the volume data is there already, as .*; remove it, or"):
        create(tasks, folder, pvc_name="data")
    assert volumes.carry_out(tasks["deletepvc"], {"pvc_name": "data"}, folder, NAMES) == {}
    assert list(folder.iterdir()) == []
    with pytest.raises(launcher.TaskError, match="deletepvc: there is no volume data in"):
        volumes.carry_out(tasks["deletepvc"], {"pvc_name": "data"}, folder, NAMES)


def test_a_name_with_a_suffix_is_a_new_one_each_time_and_one_that_kubernetes_takes(tasks, tmp_path):
    folder = tmp_path / "volumes"
    found = {create(tasks, folder, pvc_name_suffix="-my-pvc") for _ in range(3)} | {create(tasks, folder)}
    assert len(found) == 4
    assert sum(name.startswith("my-pipeline-20260101-") and name.endswith("-my-pvc") for name in found) == 3
    assert {item.name for item in folder.iterdir()} == found
    for name in found:
        volumes.check_name(name)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pvc_name": "a", "pvc_name_suffix": "-b"}, "takes one of pvc_name and pvc_name_suffix, was given both"),
        ({"pvc_name": "Data"}, "'Data' cannot name a volume"),
        ({"pvc_name": "../data"}, "cannot name a volume"),
        ({"pvc_name_suffix": "-x/../../y"}, "cannot name a volume"),
        ({"volume_name": "pv-1"}, "volume_name is of a cluster"),
        ({"data_source": {"kind": "VolumeSnapshot", "name": "x"}}, "data_source is of a cluster"),
    ],
)
def test_what_cannot_be_created_is_refused(tasks, tmp_path, parameters, message):
    with pytest.raises(launcher.TaskError, match=f"^createpvc: .*{message}"):
        create(tasks, tmp_path / "volumes", **parameters)
    assert not (tmp_path / "volumes").exists()


def test_a_long_run_name_leaves_room_for_the_suffix(tasks, tmp_path):
    names = {"pipeline_job_name": "x" * 400}
    name = volumes.carry_out(tasks["createpvc"], {"pvc_name_suffix": "-data"}, tmp_path, names)["name"]
    assert len(name) == 253
    assert name.endswith("-data")


def test_deleting_a_link_leaves_the_users_data(tasks, tmp_path):
    data, folder = tmp_path / "data", tmp_path / "volumes"
    data.mkdir()
    folder.mkdir()
    (folder / "mine").symlink_to(data)
    assert volumes.find(folder, "mine") == folder / "mine"
    volumes.carry_out(tasks["deletepvc"], {"pvc_name": "mine"}, folder, NAMES)
    assert data.is_dir()
    assert list(folder.iterdir()) == []


def test_a_part_of_a_volume_is_made_and_never_lies_outside(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "out").symlink_to(tmp_path)
    assert volumes.part(tmp_path, "data", "") == tmp_path / "data"
    assert volumes.part(tmp_path, "data", "a/b") == tmp_path / "data" / "a" / "b"
    assert (tmp_path / "data" / "a" / "b").is_dir()
    for path in ("..", "a/../../x", "/etc", "out/x"):
        with pytest.raises(ValueError, match=f"the path {path} leads out of the volume data"):
            volumes.part(tmp_path, "data", path)
    with pytest.raises(ValueError, match="there is no volume other; make the folder"):
        volumes.part(tmp_path, "other", "")


@given(st.text(alphabet="ab-./\0\\AZ_ é", max_size=8))
def test_a_name_never_leads_out_of_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "volumes"
    try:
        volumes.check_name(name)
    except ValueError:
        return
    assert (folder / name).resolve().parent == folder.resolve()


def test_the_volumes_that_a_pipeline_creates_are_known_before_it_runs(compiled):
    @dsl.pipeline(name="later")
    def later(name: str):
        kubernetes.CreatePVC(access_modes=["ReadWriteOnce"], size="1Gi", pvc_name=name)
        kubernetes.CreatePVC(access_modes=["ReadWriteOnce"], size="1Gi", pvc_name="data")

    assert set(volumes.created(from_kfp.read(compiled(later)))) == {None, "data"}
