"""What the cases share with the tests beside their folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
