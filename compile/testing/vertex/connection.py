"""Points Google's client libraries at a stand-in, and back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING
from unittest import mock

from penstock.compile.errors import PenstockError
from penstock.testing.vertex.storage import PROJECT_NUMBER

if TYPE_CHECKING:
    from penstock.testing.vertex.stand_in import VertexStandIn

_POLL = 0.1  # seconds between two looks at a job, where the SDK takes five or more


@contextlib.contextmanager
def connected(stand_in: VertexStandIn, project: str, location: str) -> Iterator[None]:
    """Point google-cloud-aiplatform and google-cloud-storage at a stand-in until the end of the block.

    Raises:
        PenstockError: the SDK is not installed.
    """
    try:
        from google.auth.compute_engine import _metadata
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import aiplatform
        from google.cloud.aiplatform import initializer, jobs, pipeline_jobs
        from google.cloud.aiplatform.metadata import metadata
        from google.cloud.aiplatform.utils import resource_manager_utils
    except ImportError as error:
        raise PenstockError(f"google-cloud-aiplatform is missing ({error}); pip install 'penstock[vertex]'") from error
    config = initializer.global_config
    before = dict(vars(config))
    storage = {
        "STORAGE_EMULATOR_HOST": stand_in.url,
        "GOOGLE_CLOUD_PROJECT": project,
        # As the gcloud CLI calls where Cloud Monitoring is asked.
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING": f"{stand_in.url}/",
        # Without it gcsfs asks the metadata server of a machine in the cloud for credentials.
        "NO_GCE_CHECK": "true",
        # With it gcsfs, imported from here on, asks over gRPC, which is not spoken here, what kind of bucket it has.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    with (
        mock.patch.dict("os.environ", storage),
        # google-auth, which has been imported by now, has read its variable already.
        mock.patch.object(_metadata, "_NO_GCE_CHECK", True),
        _without_grpc(),
        # By which the SDK makes sure that a bucket is the project's own: a service that is not played here.
        mock.patch.object(resource_manager_utils, "get_project_number", return_value=PROJECT_NUMBER),
        mock.patch.object(resource_manager_utils, "get_project_id", return_value=project),
        mock.patch.object(pipeline_jobs, "_JOB_WAIT_TIME", _POLL),
        mock.patch.object(jobs, "_JOB_WAIT_TIME", _POLL),
    ):
        try:
            aiplatform.init(
                project=project,
                location=location,
                api_endpoint=stand_in.url,
                api_transport="rest",
                credentials=AnonymousCredentials(),
                staging_bucket=f"gs://{project}-staging",
            )
            yield
        finally:
            metadata._experiment_tracker.reset()
            vars(config).clear()
            vars(config).update(before)


@contextlib.contextmanager
def _without_grpc() -> Iterator[None]:
    """Let fsspec take gcsfs's plain file system where gcsfs was imported before its variable was set."""
    if "gcsfs" not in sys.modules:
        yield
        return
    import fsspec
    import gcsfs.core  # type: ignore[import-untyped]

    schemes = ("gs", "gcs")
    before = {scheme: fsspec.get_filesystem_class(scheme) for scheme in schemes}
    try:
        for scheme in schemes:
            fsspec.register_implementation(scheme, gcsfs.core.GCSFileSystem, clobber=True)
        yield
    finally:
        for scheme, kind in before.items():
            fsspec.register_implementation(scheme, kind, clobber=True)
