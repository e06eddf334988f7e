"""What the runner image starts: the engine, with libraries that the flows in here do not find by themselves."""

import sys

sys.path[:0] = ["/opt/flo/app", "/opt/flo/site"]

from workers.runner.contained import main  # noqa: E402 - there only now

main()
