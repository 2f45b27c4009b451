"""Run in the image penstock/beam: Beam's own job service, for steps and workers in other containers.

python beam_job_service.py PORT
"""

import logging
import socket
import sys
import threading

from apache_beam.runners.portability.local_job_service import LocalJobServicer
from google.protobuf import json_format


class JobService(LocalJobServicer):
    """As it is, but known to others by the name of its machine; by itself it is for processes beside it."""

    def get_bind_address(self) -> str:
        return "0.0.0.0"

    def get_service_address(self) -> str:
        return socket.gethostname()

    def create_beam_job(self, preparation_id, job_name, pipeline, options):
        print("options of a job:", json_format.MessageToJson(options, indent=None), flush=True)
        return super().create_beam_job(preparation_id, job_name, pipeline, options)


def main(port: int) -> None:
    logging.basicConfig(level=logging.INFO)
    JobService().start_grpc_server(port)
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
