"""KFP's own installers are told from other shells, and what they install beyond kfp is read from them."""

import pytest
from kfp import dsl
from kfp.dsl import component_factory

from penstock.compile import commands, from_kfp, graph

REST = ("sh", "-ec", 'program_path=$(mktemp -d)\npython3 -m kfp.dsl.executor_main "$@"\n', "def f(): ...")
QUIET = ("--quiet", "--no-warn-script-location")
CHECK = """
if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

"""
KFP_LINE = (
    "python3 -m pip install --quiet --no-warn-script-location 'kfp==2.14.3' '--no-deps' "
    "'typing-extensions>=3.7.4,<5; python_version<\"3.9\"'"
)


def lightweight(**options) -> tuple[str, ...]:
    """Return a command as the kfp that is installed writes it."""
    return (*component_factory._get_packages_to_install_command(**options), *REST)


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text, *REST)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_venv": True},
        {"pip_index_urls": ["https://example.org/simple"]},
        {"packages_to_install": ["kfp==2.9.0"]},
        {"packages_to_install": ["kfp[all]", "kfp-pipeline-spec==2.14"]},
        {"kfp_package_path": "git+https://github.com/kubeflow/pipelines.git@master#subdirectory=sdk/python"},
        {"kfp_package_path": "git+https://github.com/kubeflow/pipelines@refs/pull/1/head#egg=kfp&subdirectory=sdk/python"},
        {"kfp_package_path": "/tmp/dist/kfp-2.17.0-py3-none-any.whl"},
        {"kfp_package_path": "https://example.org/kfp-2.17.0.tar.gz"},
        {"install_kfp_package": False},
    ],
)  # fmt: skip
def test_what_installs_kfp_alone_installs_nothing_here(options):
    command = lightweight(**options)
    assert commands.start_installs(command) == ()
    assert commands.without_install(command) == REST
    assert commands.own_installs(graph.Container("x", "image", command)) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"packages_to_install": ["dill==0.3.7"]}, ("dill==0.3.7",)),
        ({"packages_to_install": ["dill", "kfp==2.9.0"], "use_venv": True}, ("dill",)),
        ({"packages_to_install": ["a>1; python_version>'3.8'", "b[x]"], "use_venv": True},
         ("a>1; python_version>'3.8'", "b[x]")),
        ({"packages_to_install": ["a"], "install_kfp_package": False}, ("a",)),
        ({"packages_to_install": ["--no-deps", "a"]}, ("--no-deps", "a")),
        ({"packages_to_install": ["-r requirements.txt"]}, ("-r requirements.txt",)),
        ({"packages_to_install": ["kfp-kubernetes==2.17.0"]}, ("kfp-kubernetes==2.17.0",)),
        ({"packages_to_install": ["a"], "pip_index_urls": ["https://x.example/simple", "https://y.example/simple"],
          "pip_trusted_hosts": []},
         ("--index-url", "https://x.example/simple", "--extra-index-url", "https://y.example/simple", "a")),
        ({"packages_to_install": ["a"], "pip_index_urls": ["https://x.example/simple"],
          "pip_trusted_hosts": ["x.example", "y.example:8080"]},
         ("--index-url", "https://x.example/simple", "--trusted-host", "x.example", "--trusted-host",
          "y.example:8080", "a")),
    ],
)  # fmt: skip
def test_packages_beyond_kfp_are_read_with_the_options_of_their_call(options, expected):
    command = lightweight(**options)
    assert commands.start_installs(command) == ((*QUIET, *expected),)
    assert commands.without_install(command) == REST
    assert commands.own_installs(graph.Container("x", "image", command)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Versions before 2.2 had all packages in one call, later ones kfp first, those from 2.14 on kfp last.
        (CHECK + "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet     --no-warn-script-location "
         "'kfp==2.0.1' 'pandas' && \"$0\" \"$@\"\n", [(*QUIET, "pandas")]),
        (f"{CHECK}PIP_DISABLE_PIP_VERSION_CHECK=1 {KFP_LINE}  &&  python3 -m pip install --quiet "
         "--no-warn-script-location 'minio' && \"$0\" \"$@\"\n", [(*QUIET, "minio")]),
        (f"{CHECK}PIP_DISABLE_PIP_VERSION_CHECK=1 \nexport PIP_DISABLE_PIP_VERSION_CHECK=1\ntmp=$(mktemp -d)\n"
         'python3 -m venv "$tmp/venv" --system-site-packages\n. "$tmp/venv/bin/activate"\n '
         f"{KFP_LINE}  &&  python3 -m pip install --quiet --no-warn-script-location 'a' 'b' && \"$0\" \"$@\"\n",
         [(*QUIET, "a", "b")]),
        ("(PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location 'a==1' || "
         "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location 'a==1' --user) && "
         '"$0" "$@"', [(*QUIET, "a==1")]),
        ("python3 -m pip install a && pip install -i https://x.example/simple b && \"$0\" \"$@\"",
         [("a",), ("-i", "https://x.example/simple", "b")]),
    ],
    ids=["2.0", "2.4", "2.11 in a venv", "1.8 function", "by hand, the same form"],
)  # fmt: skip
def test_installers_of_other_versions_are_known(text, expected):
    assert list(commands.start_installs(script(text))) == expected
    assert commands.without_install(script(text)) == REST


@pytest.mark.parametrize(
    "text",
    [
        'apt-get install -y git && pip install flask && "$0" "$@"',
        'pip install flask; "$0" "$@"',
        'pip install flask && rm -rf /data && "$0" "$@"',
        'pip install flask > /tmp/log && "$0" "$@"',
        "(pip install flask || pip install other) && \"$0\" \"$@\"",
        'pip install flask',
    ],
)  # fmt: skip
def test_a_shell_that_does_more_is_a_command_of_its_own(text):
    assert commands.start_installs(script(text)) == ()
    assert commands.without_install(script(text)) == script(text)
    assert "flask" in commands.own_installs(graph.Container("x", "image", script(text)))


def test_what_a_component_installs_behind_kfps_installer_is_its_own():
    command = lightweight(packages_to_install=["dill"])[:3]
    body = graph.Container("x", "image", (*command, "sh", "-c", "pip install flask && serve"))
    assert commands.own_installs(body) == ["flask"]
    assert commands.packages(commands.start_installs(body.command)) == ["dill"]


def test_a_notebook_component_installs_what_its_kernel_needs(tmp_path, compiled):
    notebook = tmp_path / "n.ipynb"
    notebook.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')

    @dsl.notebook_component(notebook_path=str(notebook))
    def run_it(text: str):
        dsl.run_notebook(text=text)

    (task,) = from_kfp.read(compiled(run_it)).dag.tasks.values()
    assert isinstance(task.component.body, graph.Container)
    ((*options, first, second, third),) = commands.start_installs(task.component.body.command)
    assert tuple(options) == QUIET
    assert [word.partition(">")[0] for word in (first, second, third)] == ["nbclient", "ipykernel", "jupyter_client"]
