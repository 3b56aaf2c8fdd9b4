"""`python -m minibert`: the command line without the script that pip installs."""

import sys

from minibert.cli import main

sys.exit(main())
