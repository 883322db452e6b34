"""beartype as the type checker of lnpool under test, with PEP 484's rule that an int is a float, as in mypy."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
