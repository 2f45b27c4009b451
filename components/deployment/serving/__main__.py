"""python -m penstock.components.deployment.serving [MODEL]"""

from __future__ import annotations

import argparse
import os
import sys

# A request has one thread; more of them go to other requests. Read when numpy and the frameworks are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The server is one process, whatever Feast or a gunicorn around it has set: its metrics need no files to be shared by.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from penstock.components._shared.errors import USER_ERROR_EXIT_CODE, UserError
from penstock.components.deployment.serving.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve a model; return the code to exit with."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.components.deployment.serving",
        description="Serve a model folder to Vertex AI, KServe, Azure ML and MLflow's clients.",
        epilog="Everything else is set by environment variables; docs/serving.md lists them.",
    )
    parser.add_argument("model", nargs="?", help="model folder, or gs://BUCKET/FOLDER (default: $PENSTOCK_MODEL)")
    parser.add_argument("--host", help="address to listen on (default: $PENSTOCK_HOST, else 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on, 0 for any (default: $PENSTOCK_PORT, else 8080)")
    given = parser.parse_args(arguments)
    named = {"PENSTOCK_MODEL": given.model, "PENSTOCK_HOST": given.host, "PENSTOCK_PORT": given.port}
    environment = {**os.environ, **{name: value for name, value in named.items() if value is not None}}
    try:
        settings = Settings.read(environment)
        from penstock.components.deployment.serving.server import exit_now, serve

        code = serve(settings, environment)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_ERROR_EXIT_CODE
    except ModuleNotFoundError as error:
        print(f"error: {error}; install it: pip install 'penstock[serving]'", file=sys.stderr, flush=True)
        return USER_ERROR_EXIT_CODE
    exit_now(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
