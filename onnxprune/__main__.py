"""`python -m onnxprune`: the same as the `onnxprune` command."""

import sys

from onnxprune.cli import main

sys.exit(main())
