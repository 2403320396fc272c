"""The embedded default job: a small base network and its Elastic partner trained, compared and asked how they look."""

__all__: list[str] = []  # its modules are imported by name
