"""The embedded default job: a small base network and its Elastic partner trained, compared and asked how they look."""
