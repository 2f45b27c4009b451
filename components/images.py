"""Container images by the name of their environment, a folder in containers/."""

from importlib.metadata import version


def image(environment: str) -> str:
    """Return the image reference of an environment, without a registry.

    The tag is the version of this package. `penstock compile` is where a registry and a digest come in.

    Args:
        environment: Name of a folder in containers/, for example "tabular".
    """
    return f"penstock/{environment}:{version('penstock')}"
