"""The lab's machine image: Debian 12 as a cloud would publish it.

from lab.machine import ensure
tag = ensure(docker.from_env(), cache_folder)      # f1-lab/debian-12:<hash>
"""

from lab.machine.image import ensure, recipe_hash

__all__ = ["ensure", "recipe_hash"]
