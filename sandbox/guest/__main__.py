"""Runs this folder as a program, under whatever name it lies: `python3 -I -S /opt/sandbox-agent serve ...`.

The folder itself leaves the import path (its modules must not stand before the standard library's); its parent goes
to the end of it, and the modules are imported as a package named like the folder.
"""

import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [*(entry for entry in sys.path if os.path.abspath(entry) != folder), os.path.dirname(folder)]
package = os.path.basename(folder)
__import__(f"{package}.main")
sys.exit(sys.modules[f"{package}.main"].main(sys.argv[1:]))
