"""What goes wrong in a build, said once for all of `lab.build`."""


class BuildError(Exception):
    """Something could not be built; the text says what, why, and what to do."""
