"""What if a network's own imports are missing?"""

import no_such_package_anywhere  # noqa: F401
