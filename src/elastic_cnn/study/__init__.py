"""Studies: grids of training runs that compare networks over seeds, and the report that is made of them."""
