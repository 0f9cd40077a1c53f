"""`python -m xai_suite.workshop` makes the workshop: see `making`."""

import sys

from xai_suite.workshop.making import main

sys.exit(main())
