"""Opens the feature store that a repository describes, and applies its definitions.

Feast reads the repository from the working directory, by the bare names of its modules; so one is open at a time, and
nothing of it is left in this process afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read by libpq when it connects, which would else wait for minutes.
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")

import yaml
from feast import FeatureService, FeatureStore, FeatureView, FileSource, Project
from feast.data_source import DataSource
from feast.diff.property_diff import PropertyDiff, TransitionType
from feast.infra.registry.file import FileRegistryStore
from feast.infra.registry.registry import FeastObjectType
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import load_repo_config
from feast.repo_contents import RepoContents
from feast.repo_operations import apply_total_with_repo_instance, parse_repo

from penstock.components._shared.errors import UserError
from penstock.components.features.problems import listed
from penstock.components.features.repo import Checkout, check_out

LOCK_DEADLINE = 120.0  # seconds to wait for another run that writes the same store
NOISY = ("feast", "feast.infra.offline_stores.file_source", "ibis")
# What the clients of stores raise, by the package that they belong to.
CLIENTS = (
    "redis",
    "psycopg",
    "psycopg_pool",
    "sqlalchemy",
    "sqlite3",
    "botocore",
    "google",
    "azure",
    "grpc",
    "cassandra",
)
# Deadlines of an online store's client, where it has none of its own: by type, the option and what is added to it.
DEADLINES = {
    "redis": ("connection_string", {"socket_connect_timeout": 10, "socket_timeout": 60}),
}

_open = threading.RLock()


@dataclass(frozen=True)
class Change:
    """A definition that differs from what the registry had.

    Attributes:
        action: "created", "updated" or "deleted".
        kind: As Feast calls it, for example "feature view".
        details: What is different of an updated one.
    """

    action: str
    kind: str
    name: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}" + (f" ({', '.join(self.details)})" if self.details else "")


@dataclass
class OpenStore:
    """A feature store and the definitions of its repository."""

    store: FeatureStore
    contents: RepoContents
    checkout: Checkout
    component: str
    _secrets: dict[str, str] = field(default_factory=dict, repr=False)

    def shown(self, text: object) -> str:
        """Return a text in one line, without the values of the variables that the configuration names."""
        line = re.sub(r"(?<=://)[^/@\s]*@", "", " ".join(str(text).split()))
        for name, value in self._secrets.items():
            line = line.replace(value, f"${{{name}}}")
        return line[:600]  # what a library says may be a page

    def refuse(self, argument: str, problem: str, remedy: str) -> UserError:
        """Return the error of one argument."""
        return UserError(self.component, argument, self.shown(problem), remedy)

    @contextlib.contextmanager
    def speaking(self, what: str, consequence: str = "") -> Iterator[None]:
        """Turn failures of stores in a block into one line that says what could not be done.

        Args:
            what: Of the work, for example "the registry cannot be read".
            consequence: What has become of it all.
        """
        try:
            yield
        except Exception as error:
            cause = error.__cause__ if type(error).__name__ == "RetryError" and error.__cause__ else error
            known = type(cause).__module__.split(".")[0] in CLIENTS or isinstance(cause, OSError)
            if isinstance(cause, UserError) or not known:
                raise
            reason = str(cause).strip() or type(cause).__name__
            problem = f"{what} ({self.config_name()}): {reason}. {consequence}"
            raise self.refuse(
                "repo", problem, "Check that the store is up, its address and the variables that name it"
            ) from None

    def config_name(self) -> str:
        """Return which stores these are, in a few words."""
        if self.store is None:
            return self.checkout.name
        online = self.store.config.online_config
        kind = online.get("type") if isinstance(online, dict) else online
        return f"{self.store.config.project}, online store {kind or 'none'}"

    def views(self, names: Sequence[str] = ()) -> list[FeatureView]:
        """Return the feature views of these names; all for none."""
        known = {view.name: view for view in self.contents.feature_views}
        for name in names:
            if name not in known:
                raise self.refuse("views", f"there is no feature view {name!r}", f"There are {listed(known)}")
        return [known[name] for name in names] if names else list(known.values())

    def service(self, name: str) -> FeatureService:
        """Return a feature service, once the registry's definitions are those of the repository."""
        known = [service.name for service in self.contents.feature_services]
        if name not in known:
            raise self.refuse("service", f"there is no feature service {name!r}", f"There are {listed(known)}")
        if changes := self.plan():
            problem = f"the registry is not what the repository says: not yet {listed(changes, 5)}"
            raise self.refuse("repo", problem, "Run sync_features first, or give the revision that was synced")
        return self.store.get_feature_service(name)

    def source(self, name: str) -> DataSource:
        """Return the data source that feature rows go to; the only one for an empty name."""
        known = {view.batch_source.name: view.batch_source for view in self.contents.feature_views if view.batch_source}
        if not name and len(known) == 1:
            return next(iter(known.values()))
        if name not in known:
            problem = f"there is no data source {name!r} of a feature view" if name else "there is more than one"
            raise self.refuse("source", problem, f"Give one of {listed(known)}")
        return known[name]

    def join_keys(self, view: FeatureView) -> list[str]:
        """Return the join keys of a feature view, which it has of itself only once it is in the registry."""
        keys = {entity.name: entity.join_key for entity in self.contents.entities}
        return [keys[name] for name in view.entities if not name.startswith("__dummy")]

    def path(self, source: FileSource) -> str:
        """Return where the files of a source lie."""
        return FileSource.get_uri_for_file_path(self.checkout.folder, source.path)

    def plan(self) -> list[Change]:
        """Return how the definitions differ from what is in the registry."""
        with self.speaking("the registry cannot be read, nothing was changed"), _as_feast_errors(self):
            self.store.refresh_registry()
            registry, _, _ = self.store.plan(self.contents)
        changes = []
        for each in registry.feast_object_diffs:
            if each.transition_type == TransitionType.UNCHANGED or each.name.startswith("__dummy"):
                continue
            differences = [found for found in each.feast_object_property_diffs if _differs(found)]
            details = tuple(sorted(difference.property_name for difference in differences))
            if each.transition_type == TransitionType.UPDATE and not details:
                continue
            changes.append(Change(_ACTIONS[each.transition_type], each.feast_object_type.value, each.name, details))
        order = {kind.value: place for place, kind in enumerate(FeastObjectType)}
        return sorted(changes, key=lambda change: (order[change.kind], change.name))

    def apply(self) -> list[Change]:
        """Bring the registry and the online store's tables to the definitions, and return what was changed.

        Raises:
            UserError: Another run changed the registry in between, a definition is wrong or a store does not answer.
        """
        before = self.state()
        changes = self.plan()
        if not changes:
            return []
        if self.state() != before:
            raise self._changed_by_others("while the changes were planned; nothing was applied")
        half = "Definitions may be applied in part; another run applies the rest."
        with self.speaking("the definitions cannot be applied", half), _as_feast_errors(self), silent():
            apply_total_with_repo_instance(
                self.store, self.store.project, self.store.registry, self.contents, skip_source_validation=True
            )
        return changes

    def check_unchanged(self, consequence: str) -> None:
        """Refuse to go on where the registry no longer has the definitions of this repository."""
        if changes := self.plan():
            others = f"it now differs in {listed(changes, 5)}"
            raise self._changed_by_others(f"since this run applied its definitions: {others}. {consequence}")

    def _changed_by_others(self, when: str) -> UserError:
        return self.refuse("repo", f"another run changed the registry {when}", "Agree on one repository, and run again")

    def state(self) -> str:
        """Return a digest of the definitions in the registry, not of when anything was materialized."""
        with self.speaking("the registry cannot be read"):
            self.store.refresh_registry()
            proto = self.store.registry.proto()
        digest = hashlib.sha256()
        for described, value in proto.ListFields():
            if described.message_type is None or described.name == "last_updated" or not hasattr(value, "add"):
                continue
            specs = [getattr(item, "spec", item).SerializeToString(deterministic=True) for item in value]
            for spec in sorted(specs):
                digest.update(described.name.encode() + b"\0" + spec)
        return digest.hexdigest()

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other runs of this package on this machine from writing the same store meanwhile.

        Raises:
            UserError: Another one has been at it for too long.
        """
        kept = self._registry_file()
        if kept is None:  # a server's registry keeps its own order
            yield
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_name(f".{kept.name}.lock").open("a") as lock:
            until = time.monotonic() + LOCK_DEADLINE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        problem = f"another run has been writing {kept} for {LOCK_DEADLINE:.0f} s"
                        raise self.refuse("repo", problem, "Run the step again when it is done") from None
                    time.sleep(0.05)
            yield

    def _registry_file(self) -> Path | None:
        kept = getattr(self.store.registry, "_registry_store", None)
        return kept._filepath if isinstance(kept, FileRegistryStore) else None


_ACTIONS = {TransitionType.CREATE: "created", TransitionType.UPDATE: "updated", TransitionType.DELETE: "deleted"}


@contextlib.contextmanager
def opened(repo: str, config: str, component: str) -> Iterator[OpenStore]:
    """Open the feature store of a repository for the length of a block.

    The working directory is the repository's folder meanwhile, from which Feast reads relative paths.

    Args:
        repo: See check_out.
        config: File of the repository that configures the store.
        component: Component that asks, for errors.

    Raises:
        UserError: The repository cannot be had or read, variables that it names are not set, or a package is missing.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-repo-") as scratch, _open:
        checkout = check_out(repo, config, Path(scratch), component)
        text = (checkout.folder / config).read_text(encoding="utf-8")
        secrets = _variables(text, config, component)
        with contextlib.chdir(checkout.folder), _quiet(), _whole_registries():
            found = OpenStore(None, None, checkout, component, secrets)
            found.contents = _parsed(checkout.folder, found)
            try:
                settings = load_repo_config(checkout.folder, checkout.folder / config)
                _set_deadlines(settings)
                _refuse_lost_state(found, settings)
                if not found.contents.projects:
                    found.contents.projects.append(
                        Project(name=settings.project, description=settings.project_description or "")
                    )
                with found.speaking("the registry cannot be opened"):
                    found.store = FeatureStore(config=settings)
                    found.store.registry  # noqa: B018 - connects
            except UserError:
                raise
            except Exception as error:  # YAML, pydantic and Feast raise errors of many kinds here
                raise _configuration_problem(found, config, error) from None
            yield found


def _differs(difference: PropertyDiff) -> bool:
    """Whether a property differs in more than when it was written, which materialization changes in a view's source."""
    values = []
    for value in (difference.val_existing, difference.val_declared):
        if isinstance(value, DataSourceProto):
            plain = DataSourceProto()
            plain.CopyFrom(value)
            plain.ClearField("meta")
            value = plain
        values.append(value)
    return bool(values[0] != values[1])


def _variables(text: str, config: str, component: str) -> dict[str, str]:
    """Return the values of the variables that a configuration names."""
    plain = re.sub(r"(?m)(^|\s)#.*$", "", text)
    names = dict.fromkeys(re.findall(r"\$\{(\w+)\}", plain))
    if missing := [name for name in names if name not in os.environ]:
        raise UserError(
            component,
            "config",
            f"{config} names variables that are not set: {listed(missing)}",
            "Set them where this step runs; secrets reach it so, and no other way",
        )
    # A short value that is no secret by its name, such as a port, stands in messages for other reasons, too.
    secret = re.compile("PASS|SECRET|TOKEN|KEY", re.IGNORECASE)
    values = {name: os.environ[name] for name in names}
    return {name: value for name, value in values.items() if len(value) > 7 or (value and secret.search(name))}


def _parsed(folder: Path, found: OpenStore) -> RepoContents:
    """Return the definitions of a repository, whose modules are forgotten again."""
    before = set(sys.modules)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    try:
        for name in [each.stem for each in folder.glob("*.py")]:
            sys.modules.pop(name, None)
        return parse_repo(folder)
    except Exception as error:  # whatever the code of a repository raises
        problem = f"{found.checkout.name} cannot be read{_where(error, folder)}: {type(error).__name__}: {error}"
        raise found.refuse("repo", problem, "Try `feast plan` in it") from None
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        for name in set(sys.modules) - before:
            path = getattr(sys.modules[name], "__file__", None)
            if path and Path(path).is_relative_to(folder):
                del sys.modules[name]


def _where(error: BaseException, folder: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    return f" in {Path(inside[-1].filename).name}, line {inside[-1].lineno}" if inside else ""


def _set_deadlines(settings: Any) -> None:
    online = settings.online_config
    kind = online.get("type") if isinstance(online, dict) else online
    if kind in DEADLINES and isinstance(online, dict):
        option, added = DEADLINES[kind]
        given = str(online.get(option) or "localhost:6379")
        missing = [f"{name}={value}" for name, value in added.items() if f"{name}=" not in given]
        settings.online_config = {**online, option: ",".join([given, *missing])}


def _refuse_lost_state(found: OpenStore, settings: Any) -> None:
    """Refuse to keep a store in a copy of the repository, which goes away."""
    if found.checkout.stays:
        return
    registry = settings.registry_config
    online = settings.online_config if isinstance(settings.online_config, dict) else {}
    kept = {
        "registry": registry if isinstance(registry, str) else (registry or {}).get("path", ""),
        "online_store.path": online.get("path", ""),
    }
    kept |= {
        f"path of source {source.name}": source.path
        for source in found.contents.data_sources
        if isinstance(source, FileSource)
    }
    for what, path in kept.items():
        if path and "://" not in str(path) and not Path(str(path)).is_absolute():
            raise found.refuse(
                "repo",
                f"{what} is the relative path {path}, and {found.checkout.name} is fetched for this step alone",
                "Write an absolute path, a URI, or a variable such as ${FEATURES}/registry.db there; or give a folder",
            )


def _configuration_problem(found: OpenStore, config: str, error: Exception) -> UserError:
    if isinstance(error, ImportError) or "Extras" in type(error).__name__:
        return found.refuse(
            "config", f"{config} needs a package that is not installed ({error})", "Install it where this runs"
        )
    where = "config" if isinstance(error, yaml.YAMLError | ValueError) or "Config" in type(error).__name__ else "repo"
    return found.refuse(where, f"{config} cannot be used: {error}", "Try `feast configuration` in the repository")


@contextlib.contextmanager
def _as_feast_errors(found: OpenStore) -> Iterator[None]:
    """Turn what Feast says of definitions into one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not (
            type(error).__module__.startswith("feast.") or isinstance(error, ValueError)
        ):
            raise
        raise found.refuse(
            "repo", f"{found.checkout.name}: {error}", "Mend the definition; `feast plan` says the same"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's notes on what is experimental, and on files that are yet to be written, out of logs."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep what Feast prints about its progress out of logs."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def _whole_registries() -> Iterator[None]:
    """Have Feast replace the file of a registry as a whole, which it would cut to nothing before it writes."""

    def write(self: FileRegistryStore, registry: Any) -> None:
        path = self._filepath
        self._filepath = path.with_name(f".{path.name}.unfinished")
        try:
            plainly(self, registry)
            os.replace(self._filepath, path)
        finally:
            self._filepath = path

    plainly = FileRegistryStore._write_registry
    FileRegistryStore._write_registry = write
    try:
        yield
    finally:
        FileRegistryStore._write_registry = plainly
