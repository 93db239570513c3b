"""`python -m authz_demo.issuer --config FILE`: the stand-in as a process of its own."""

import sys

from authz_demo.issuer.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
