"""The jobs a network is trained for (`spec.py`), and the one engine that trains and tests them all (`training.py`).

Code of a task is imported when it is used, so that recipes and cards can be read without Lightning.
"""

__all__: list[str] = []  # its modules are imported by name
