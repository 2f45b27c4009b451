"""SIGKILL after each change that deploy, roll_out and undeploy ask a platform for: the next attempt finishes them."""

import pytest

from penstock.components.deployment import backends
from penstock.components.deployment.backends import azureml
from penstock.components.deployment.deploy import deploy, set_traffic, undeploy
from penstock.components.deployment.roll_out import roll_out
from tests.components.deployment import clouds
from tests.components.deployment.clouds import NAME, PLATFORMS, standing
from tests.components.killing import killed_after_each_change


class Endpoint:
    """What is done to an endpoint of a platform, and what undoes it."""

    def __init__(self, cloud, two, folder):
        self.cloud, self.two, self.folder = cloud, list(two.items()), folder
        self.given = {"endpoint": NAME, "platform": cloud.platform, "options": {**cloud.options}}
        if cloud.platform != "kubeflow":
            self.given["options"]["metrics_seconds"] = 0.05

    def put(self, number):
        deploy(self.two[number][1][0], model_uri=f"gs://models/{number}", **self.given)

    def put_both(self):
        self.put(0)
        self.put(1)

    def take(self, number=None):
        undeploy(version="" if number is None else self.two[number][0], **self.given)
        self.cloud.forget_models()

    def move(self):
        hold = {"seconds": 0.05, "requests": 1, "least": 0}
        paths = self.folder / "history.json", self.folder / "report.html"
        roll_out(*paths, version=self.two[1][0], steps=[50, 100], hold=hold, **self.given)

    def move_back(self):
        set_traffic(traffic={self.two[0][0]: 100}, **self.given)
        if self.cloud.platform == "kubeflow":  # which has no revision of the other by then
            self.put(1)

    def there(self):
        """Return all that the platform has, and whether a rollout goes on."""
        note = backends.connect(self.cloud.platform, self.cloud.options, "test").note(NAME).document
        return self.cloud.there(), bool(note) and note["state"] == "running"


# What comes before, what is killed, and what lets it be done anew.
OPERATIONS = {
    "deploy the first version": (lambda it: None, lambda it: it.put(0), lambda it: it.take()),
    "deploy another": (lambda it: it.put(0), lambda it: it.put(1), lambda it: it.take(1)),
    "roll out": (lambda it: it.put_both(), lambda it: it.move(), lambda it: it.move_back()),
    "undeploy a version": (lambda it: it.put_both(), lambda it: it.take(1), lambda it: it.put(1)),
    "undeploy all": (lambda it: it.put_both(), lambda it: it.take(), lambda it: it.put_both()),
}
CHANGES = {
    "kubeflow": {"deploy the first version": 2, "deploy another": 2, "roll out": 5, "undeploy all": 1},
    "vertex": {"deploy the first version": 9, "deploy another": 8, "roll out": 6, "undeploy all": 5},
    "azureml": {"deploy the first version": 8, "deploy another": 5, "roll out": 10, "undeploy all": 1},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_killed_after_any_change_it_is_finished_by_the_next_attempt(platform, operation, two, tmp_path, monkeypatch):
    clouds.quicken(monkeypatch)
    monkeypatch.setattr(azureml, "HELD", 0.3)
    prepare, work, undo = OPERATIONS[operation]
    with standing(platform, {version: served for version, (_, served) in two.items()}) as cloud:
        endpoint = Endpoint(cloud, two, tmp_path)
        prepare(endpoint)
        work(endpoint)
        whole = endpoint.there()
        undo(endpoint)
        number = 0
        for number in killed_after_each_change(lambda: work(endpoint)):
            assert sum(cloud.shares().values()) in (0, 100)
            work(endpoint)
            assert endpoint.there() == whole, f"killed after change {number}"
            undo(endpoint)
        cloud.forget_models()
        assert endpoint.there() == whole
    assert number >= CHANGES[platform].get(operation, 1)
