"""Errors of the tools that a user can mend."""


class PenstockError(Exception):
    """One line that says what, where, why and what to do; the command prints it and exits with 2."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())
