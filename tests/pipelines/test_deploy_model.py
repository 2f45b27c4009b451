"""deploy_model as its page says: train, deploy, ask, train again, roll out."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from penstock.components.deployment.deploy import undeploy

ROOT = Path(__file__).parents[2]


def told(page: str, language: str = "console") -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


COMMANDS = told("docs/deployment.md")
AFTERWARDS = told("docs/deployment.md", "sh")


def run(folder: Path, command: str, port: int) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = command.replace("8600", str(port))
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.mark.slow
def test_what_the_page_says_can_be_done_as_it_says(tmp_path, port):
    train, deploy, curl, again, roll_out = COMMANDS
    options = {"state": str(tmp_path / "penstock-out" / "endpoints")}
    try:
        run(tmp_path, train, port)
        run(tmp_path, deploy, port)
        [once_more] = told("components/deployment/README.md", "sh")
        run(tmp_path, once_more, port)
        [answer] = json.loads(run(tmp_path, curl, port))["predictions"]
        assert set(answer) == {"prediction", "probability_false", "probability_true"}
        run(tmp_path, again, port)
        body = re.search(r"-d '(.*)'", curl)[1].encode()
        end, versions = threading.Event(), set()

        def ask():
            while not end.is_set():
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"}
                )
                with urllib.request.urlopen(request, timeout=30) as answer:
                    versions.add(answer.headers["X-Model-Version"])
                end.wait(0.01)

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            run(tmp_path, roll_out, port)
        finally:
            end.set()
            for client in clients:
                client.join()
        assert len(versions) == 2
        file = tmp_path / "penstock-out" / "endpoints" / "taxi-tips" / "endpoint.json"
        endpoint = json.loads(file.read_text())
        [(_, share)] = endpoint["traffic"].items()
        assert share == 100
        assert endpoint["note"]["state"] == "promoted"
        [first] = versions - endpoint["traffic"].keys()
        for command in AFTERWARDS[:2]:
            run(tmp_path, command.replace("v0123456789ab", first), port)
        assert json.loads(file.read_text())["traffic"] == {first: 100}
        run(tmp_path, AFTERWARDS[2], port)
        assert not file.exists()
    finally:
        undeploy(endpoint="taxi-tips", options=options)


def test_the_pages_have_the_commands_that_are_tried():
    assert told("README.md") == COMMANDS[1:3]
    assert [command.split()[0] for command in COMMANDS] == ["penstock", "penstock", "curl", "penstock", "penstock"]
