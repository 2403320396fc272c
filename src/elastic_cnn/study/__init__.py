"""Studies: grids of training runs that compare networks over seeds, and the report that is made of them."""

__all__: list[str] = []  # its modules are imported by name
