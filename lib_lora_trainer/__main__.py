"""`python -m lib_lora_trainer`."""

import sys

from lib_lora_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
