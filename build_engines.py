"""Build engines: the same step as `fastgen build`, with the same options.

python build_engines.py --model mini --backend onnxruntime
"""

import sys

from fastgen.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
