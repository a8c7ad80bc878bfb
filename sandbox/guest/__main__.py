"""Runs this folder as a program, whatever its name is: `python3 -I -S /opt/sandbox-agent serve ...`.

The folder is removed from the import path, so that its modules do not hide those of the standard library. Its parent
is appended to the path, and the modules are imported as a package with the name of the folder.
"""

import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [*(entry for entry in sys.path if os.path.abspath(entry) != folder), os.path.dirname(folder)]
package = os.path.basename(folder)
__import__(f"{package}.main")
sys.exit(sys.modules[f"{package}.main"].main(sys.argv[1:]))
